//! Tests of the pgoutput decoder, on bytes as Postgres sends them and on garbage.

use super::*;
use crate::rows::Cell;
use crate::rows::test_support::tuple;
use proptest::prelude::*;

fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[test]
fn begin_and_commit() {
    let begin =
        [b"B".as_slice(), &5u64.to_be_bytes(), &1i64.to_be_bytes(), &9u32.to_be_bytes()].concat();
    let at_micros = POSTGRES_EPOCH_MICROS + 1;
    assert_eq!(decode(&begin), Ok(Message::Begin { final_lsn: Lsn(5), at_micros, xid: 9 }));
    let commit =
        [b"C\0".as_slice(), &5u64.to_be_bytes(), &6u64.to_be_bytes(), &1i64.to_be_bytes()].concat();
    assert_eq!(
        decode(&commit),
        Ok(Message::Commit { commit_lsn: Lsn(5), end_lsn: Lsn(6), at_micros })
    );
    assert!(decode(&commit[..25]).is_err());
    assert_eq!(decode(&[commit, vec![0]].concat()).unwrap_err().what, "bytes follow the message");
}

#[test]
fn a_relation() {
    let columns = [
        [&[1][..], &cstr("id"), &[0, 0, 0, 23], &[255; 4]].concat(),
        [&[0][..], &cstr("ü"), &[0, 0, 0, 25], &[0, 0, 0, 7]].concat(),
    ];
    let bytes =
        [&b"R\0\0\0\x07"[..], &cstr(""), &cstr("t"), b"f\0\x02", &columns.concat()].concat();
    let column =
        |key, name: &str, oid, typmod| RelationColumn { key, name: name.into(), oid, typmod };
    let expected = Relation {
        relid: 7,
        namespace: "pg_catalog".into(),
        name: "t".into(),
        identity: Identity::Full,
        columns: vec![column(true, "id", 23, -1), column(false, "ü", 25, 7)],
    };
    assert_eq!(decode(&bytes), Ok(Message::Relation(expected)));
}

#[test]
fn rows() {
    let (old, new) =
        (tuple(&[(b'b', b"key"), (b'n', b"")]), tuple(&[(b't', b"text"), (b'u', b"")]));
    let insert = [b"I\0\0\0\x07N".as_slice(), &new].concat();
    assert_eq!(decode(&insert), Ok(Message::Insert { relid: 7, new: Tuple { bytes: &new } }));
    let update = [b"U\0\0\0\x07K".as_slice(), &old, b"N", &new].concat();
    let old_key = OldTuple { tuple: Tuple { bytes: &old }, key_only: true };
    assert_eq!(
        decode(&update),
        Ok(Message::Update { relid: 7, old: Some(old_key), new: Tuple { bytes: &new } })
    );
    let update = [b"U\0\0\0\x07N".as_slice(), &new].concat();
    assert_eq!(
        decode(&update),
        Ok(Message::Update { relid: 7, old: None, new: Tuple { bytes: &new } })
    );
    let delete = [b"D\0\0\0\x07O".as_slice(), &old].concat();
    assert_eq!(
        decode(&delete),
        Ok(Message::Delete { relid: 7, old: OldTuple { key_only: false, ..old_key } })
    );
    assert!(decode(&[b"D\0\0\0\x07N".as_slice(), &old].concat()).is_err());
}

#[test]
fn cells_point_into_the_batch() {
    let bytes = tuple(&[(b'b', b"abc"), (b'n', b""), (b't', b""), (b'u', b"")]);
    let mut cells = vec![];
    Tuple { bytes: &bytes }.cells_into(100, &mut cells).unwrap();
    let expected = [
        Cell::Binary { start: 107, len: 3 },
        Cell::Null,
        Cell::Text { start: 116, len: 0 },
        Cell::Unchanged,
    ];
    assert_eq!(cells, expected);
    for end in 0..bytes.len() {
        assert!(Tuple { bytes: &bytes[..end] }.cells_into(0, &mut cells).is_err());
    }
    assert!(Tuple { bytes: &[&bytes[..], &[0]].concat() }.cells_into(0, &mut cells).is_err());
    assert_eq!(cells.len(), 4, "an error leaves nothing behind");
}

#[test]
fn a_truncate_names_its_relations() {
    let bytes = b"T\0\0\0\x02\0\0\0\0\x07\0\0\0\x08";
    let Ok(Message::Truncate(truncated)) = decode(bytes) else { panic!() };
    assert_eq!(truncated.relids().collect::<Vec<_>>(), [7, 8]);
    assert!(decode(&bytes[..10]).is_err());
}

#[test]
fn what_is_not_needed_is_passed_over() {
    for bytes in [b"Yxxx", b"Oxxx", b"Mxxx"] {
        assert_eq!(decode(bytes), Ok(Message::Other));
    }
    assert!(decode(b"S").unwrap_err().to_string().starts_with("pgoutput message 'S'"));
}

fn take_cells(message: &Message<'_>) {
    let tuples = match message {
        Message::Insert { new, .. } => vec![*new],
        Message::Update { old, new, .. } => old.iter().map(|old| old.tuple).chain([*new]).collect(),
        Message::Delete { old, .. } => vec![old.tuple],
        _ => vec![],
    };
    for tuple in tuples {
        let mut cells = vec![];
        if tuple.cells_into(0, &mut cells).is_ok() {
            for cell in cells {
                if let Cell::Binary { start, len } | Cell::Text { start, len } = cell {
                    assert!((start + len) as usize <= tuple.bytes.len());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_are_refused_or_read(tag in prop::sample::select(b"BCRIUDTYOMX".to_vec()), body: Vec<u8>) {
        if let Ok(message) = decode(&[&[tag][..], &body].concat()) {
            take_cells(&message);
        }
    }

    #[test]
    fn damaged_updates_are_refused_or_read(
        old in prop::collection::vec((prop::sample::select(b"nubt".to_vec()), any::<Vec<u8>>()), 0..5),
        new in prop::collection::vec((prop::sample::select(b"nubt".to_vec()), any::<Vec<u8>>()), 0..5),
        at: prop::sample::Index,
        damage: u8,
    ) {
        let cells = |cells: &[(u8, Vec<u8>)]| tuple(&cells.iter().map(|(k, b)| (*k, b.as_slice())).collect::<Vec<_>>());
        let mut bytes = [b"U\0\0\0\x01O".as_slice(), &cells(&old), b"N", &cells(&new)].concat();
        let message = decode(&bytes).unwrap();
        take_cells(&message);
        let Message::Update { old: Some(OldTuple { tuple, .. }), new: new_tuple, .. } = message else { panic!() };
        prop_assert_eq!(tuple.bytes, cells(&old));
        prop_assert_eq!(new_tuple.bytes, cells(&new));
        let at = at.index(bytes.len());
        bytes[at] = damage;
        if let Ok(message) = decode(&bytes) {
            take_cells(&message);
        }
    }
}
