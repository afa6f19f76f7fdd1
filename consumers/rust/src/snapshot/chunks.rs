//! The contents of a snapshot's subjects and of the first bytes of a chunk.

use walgate_wire::{Caps, Token, subjects};

use crate::error::UnreadableMessage;

/// Snapshot id and chunk number of `init.snap.{t}.{snapshot_id}.{n}`.
pub(crate) fn parse_chunk_subject(subject: &str) -> Option<(&str, u64)> {
    let mut tokens = subject.strip_prefix(INIT_SNAP)?.split('.').skip(1);
    let place = (tokens.next()?, tokens.next()?.parse().ok()?);
    tokens.next().is_none().then_some(place)
}

const INIT_SNAP: &str = "init.snap.";

/// The row count at the beginning of a chunk.
pub(crate) fn read_row_count(body: &[u8], caps: &Caps) -> Result<u64, UnreadableMessage> {
    let mut reader = walgate_wire::Reader::new(body, caps);
    reader.array()?;
    reader.int()?;
    let rows = reader.int()?;
    u64::try_from(rows).map_err(|_| UnreadableMessage::Other(format!("a chunk of {rows} rows")))
}

/// Every subject that a snapshot of this table uses.
pub(crate) fn all_subjects(token: &Token) -> Vec<String> {
    vec![
        subjects::init_start(token),
        subjects::init_snap_all(token),
        subjects::init_meta(token),
        subjects::init_error(token),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_subjects_are_parsed() {
        assert_eq!(parse_chunk_subject("init.snap.sales=2Eorders.abc.12"), Some(("abc", 12)));
        assert_eq!(parse_chunk_subject("init.snap.users.abc"), None);
        assert_eq!(parse_chunk_subject("init.snap.users.abc.1.2"), None);
        assert_eq!(parse_chunk_subject("init.snap.users.abc.x"), None);
    }
}
