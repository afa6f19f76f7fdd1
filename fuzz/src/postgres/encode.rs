//! Encodes decoded messages of pgoutput again, so that the target can compare.

use walgate_host::{
    postgres::replication::pgoutput::{Message, POSTGRES_EPOCH_MICROS, Relation},
    rows::OldTuple,
};
use walgate_wire::Identity;

/// `None` for a message whose contents were not decoded.
pub fn encode_message(message: &Message<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match message {
        Message::Begin { final_lsn, at_micros, xid } => {
            out.push(b'B');
            out.extend(final_lsn.0.to_be_bytes());
            out.extend((at_micros - POSTGRES_EPOCH_MICROS).to_be_bytes());
            out.extend(xid.to_be_bytes());
        }
        Message::Commit { commit_lsn, end_lsn, at_micros } => {
            out.extend(b"C\0");
            out.extend(commit_lsn.0.to_be_bytes());
            out.extend(end_lsn.0.to_be_bytes());
            out.extend((at_micros - POSTGRES_EPOCH_MICROS).to_be_bytes());
        }
        Message::Relation(relation) => append_relation(relation, &mut out),
        Message::Insert { relid, new } => {
            out.push(b'I');
            out.extend(relid.to_be_bytes());
            out.push(b'N');
            out.extend(new.bytes);
        }
        Message::Update { relid, old, new } => {
            out.push(b'U');
            out.extend(relid.to_be_bytes());
            old.iter().for_each(|old| append_old_tuple(old, &mut out));
            out.push(b'N');
            out.extend(new.bytes);
        }
        Message::Delete { relid, old } => {
            out.push(b'D');
            out.extend(relid.to_be_bytes());
            append_old_tuple(old, &mut out);
        }
        Message::Truncate(truncated) => {
            out.push(b'T');
            out.extend((truncated.relids().count() as u32).to_be_bytes());
            out.push(0);
            out.extend(truncated.relids().flat_map(u32::to_be_bytes));
        }
        Message::Other => return None,
    }
    Some(out)
}

fn append_old_tuple(old: &OldTuple<'_>, out: &mut Vec<u8>) {
    out.push(if old.key_only { b'K' } else { b'O' });
    out.extend(old.tuple.bytes);
}

fn append_relation(relation: &Relation, out: &mut Vec<u8>) {
    out.push(b'R');
    out.extend(relation.relid.to_be_bytes());
    for name in [&relation.namespace, &relation.name] {
        out.extend(name.as_bytes());
        out.push(0);
    }
    out.push(match relation.identity {
        Identity::Default => b'd',
        Identity::Index => b'i',
        Identity::Full => b'f',
        Identity::Nothing => b'n',
    });
    out.extend((relation.columns.len() as u16).to_be_bytes());
    for column in &relation.columns {
        out.push(u8::from(column.key));
        out.extend(column.name.as_bytes());
        out.push(0);
        out.extend(column.oid.to_be_bytes());
        out.extend(column.typmod.to_be_bytes());
    }
}
