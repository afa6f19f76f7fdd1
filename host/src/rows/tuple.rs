//! pgoutput's TupleData: the bytes of one row → its cells.
//!
//! Pure and total: any bytes give cells or [`Malformed`].

use super::Cell;

/// Bytes that do not follow the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pgoutput message '{}' is malformed at byte {at}: {what}", tag.escape_ascii())]
pub struct Malformed {
    pub tag: u8,
    pub at: usize,
    pub what: &'static str,
}

/// An old row: the whole of it, or its key columns with the others null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldTuple<'a> {
    pub tuple: Tuple<'a>,
    pub key_only: bool,
}

/// TupleData, from its column count on; checked when its cells are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    pub bytes: &'a [u8],
}

impl Tuple<'_> {
    /// Appends one cell for each column, as if the tuple's bytes were at `base` of a batch. On an
    /// error `cells` is unchanged.
    pub fn cells_into(&self, base: u32, cells: &mut Vec<Cell>) -> Result<(), Malformed> {
        let first = cells.len();
        let end = walk(self.bytes, |cell| cells.push(shift_cell(cell, base)));
        let result = match end {
            Ok(end) if end == self.bytes.len() => Ok(()),
            Ok(at) => Err(Malformed { tag: b'N', at, what: "bytes follow the last column" }),
            Err(malformed) => Err(malformed),
        };
        if result.is_err() {
            cells.truncate(first);
        }
        result
    }
}

#[inline]
fn shift_cell(cell: Cell, base: u32) -> Cell {
    match cell {
        Cell::Binary { start, len } => Cell::Binary { start: base + start, len },
        Cell::Text { start, len } => Cell::Text { start: base + start, len },
        other => other,
    }
}

/// Calls `each` for every column of the tuple at the beginning of `bytes`; returns the tuple's end.
/// Frames are below 4 GiB, so offsets fit.
#[inline]
pub fn walk(bytes: &[u8], mut each: impl FnMut(Cell)) -> Result<usize, Malformed> {
    let malformed = |at, what| Malformed { tag: b'N', at, what };
    let Some((count, _)) = bytes.split_first_chunk::<2>() else {
        return Err(malformed(0, "the tuple ends before its column count"));
    };
    let mut at = 2usize;
    for _ in 0..u16::from_be_bytes(*count) {
        let Some((&kind, rest)) = bytes[at..].split_first() else {
            return Err(malformed(at, "the tuple ends before its last column"));
        };
        at += 1;
        match kind {
            b'n' => each(Cell::Null),
            b'u' => each(Cell::Unchanged),
            b'b' | b't' => {
                let Some((len, rest)) = rest.split_first_chunk::<4>() else {
                    return Err(malformed(at, "the tuple ends before a column's length"));
                };
                let len = u32::from_be_bytes(*len);
                if len as usize > rest.len() {
                    return Err(malformed(at, "a column is longer than its tuple"));
                }
                let start = at as u32 + 4;
                each(if kind == b'b' {
                    Cell::Binary { start, len }
                } else {
                    Cell::Text { start, len }
                });
                at += 4 + len as usize;
            }
            _ => return Err(malformed(at - 1, "a kind of column that is not n, u, t or b")),
        }
    }
    Ok(at)
}
