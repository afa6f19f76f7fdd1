//! The body of `init.snap`: rows of a snapshot, stored column by column.
//!
//! A chunk is `[1, row_count, columns]`, each column is `[encoding, values]`. Encoding 0 holds
//! plain values. Encoding 1 is for integers and times: each integer is the difference to the
//! previous integer of the column, the first one to 0. A nil or a string is stored as it is and
//! skipped when looking for the previous integer.
//!
//! This module does not know which rows a chunk holds, nor how chunks are numbered.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::{Caps, DecodeError, Reader, Value, hex, pack};

const LAYOUT_COLUMNS: u64 = 1;
const PLAIN: u64 = 0;
const DELTA: u64 = 1;

/// One column of a chunk that is being written. The caller appends exactly one value per row.
#[derive(Debug, Default)]
pub struct ChunkColumn {
    /// The values so far, as MessagePack. Append everything but integers directly to it.
    pub out: Vec<u8>,
    delta: bool,
    previous: i64,
}

impl ChunkColumn {
    /// Appends an integer: in a delta column the difference to the previous one.
    #[inline]
    pub fn int(&mut self, value: i64) {
        if self.delta {
            pack::int(&mut self.out, value.wrapping_sub(self.previous));
            self.previous = value;
        } else {
            pack::int(&mut self.out, value);
        }
    }
}

/// Collects rows and writes chunks. Its buffers are reused from chunk to chunk.
#[derive(Debug)]
pub struct ChunkWriter {
    /// The columns, in schema order. Append one value to each, then call [`ChunkWriter::end_row`].
    pub columns: Vec<ChunkColumn>,
    rows: usize,
}

impl ChunkWriter {
    /// A writer for `delta.len()` columns. `delta[i]` selects delta coding for column `i`.
    pub fn new(delta: &[bool]) -> Self {
        let column = |&delta| ChunkColumn { delta, ..ChunkColumn::default() };
        ChunkWriter { columns: delta.iter().map(column).collect(), rows: 0 }
    }

    /// Ends a row. Call it once per row, after the row's values.
    pub fn end_row(&mut self) {
        self.rows += 1;
    }

    /// Number of rows in the current chunk.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Size of the current chunk in bytes, without the headers of chunk and columns.
    pub fn raw_bytes(&self) -> usize {
        self.columns.iter().map(|c| c.out.len()).sum()
    }

    /// Appends the chunk to `out` and starts an empty one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        pack::array(out, 3);
        pack::uint(out, LAYOUT_COLUMNS);
        pack::uint(out, self.rows as u64);
        pack::array(out, self.columns.len());
        for column in &mut self.columns {
            pack::array(out, 2);
            pack::uint(out, if column.delta { DELTA } else { PLAIN });
            pack::array(out, self.rows);
            out.extend_from_slice(&column.out);
            column.out.clear();
            column.previous = 0;
        }
        self.rows = 0;
    }
}

/// A decoded chunk. Its values borrow from the body.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk<'a> {
    /// Number of rows. A table without columns can have rows, too.
    pub row_count: usize,
    /// `columns[c][r]` is the value of column `c` in row `r`. Every column has `row_count` values.
    pub columns: Vec<Vec<Value<'a>>>,
}

impl<'a> Chunk<'a> {
    /// The rows in order, one value per column.
    pub fn into_rows(self) -> impl Iterator<Item = Vec<Value<'a>>> {
        let mut columns: Vec<_> = self.columns.into_iter().map(Vec::into_iter).collect();
        (0..self.row_count).map(move |_| columns.iter_mut().filter_map(Iterator::next).collect())
    }
}

/// Decodes the decompressed body of a chunk of a table with `columns` columns.
///
/// # Errors
/// If the body is not a chunk of layout 1 with that many columns, or exceeds `caps`.
pub fn decode_chunk<'a>(
    body: &'a [u8],
    columns: usize,
    caps: &Caps,
) -> Result<Chunk<'a>, DecodeError> {
    let mut reader = Reader::new(body, caps);
    if reader.array()? != 3 || reader.int()? != LAYOUT_COLUMNS as i64 {
        return reader.fail("a chunk layout that this version does not know");
    }
    let row_count = reader.int()?;
    if reader.array()? != columns {
        return reader.fail("a chunk does not have as many columns as its schema");
    }
    // A table without columns can have rows. Their number is not bounded by the size of the body.
    let row_count = usize::try_from(row_count)
        .ok()
        .filter(|&rows| rows <= if columns == 0 { 1 << 24 } else { body.len() });
    let Some(row_count) = row_count else { return reader.fail("a row count beyond the body") };
    let columns =
        (0..columns).map(|_| decode_column(&mut reader, row_count)).collect::<Result<_, _>>()?;
    if !reader.is_empty() {
        return reader.fail("a chunk is followed by more bytes");
    }
    Ok(Chunk { row_count, columns })
}

fn decode_column<'a>(
    reader: &mut Reader<'a>,
    row_count: usize,
) -> Result<Vec<Value<'a>>, DecodeError> {
    if reader.array()? != 2 {
        return reader.fail("a column has two values");
    }
    let encoding = reader.int()?;
    let mut values = reader.row()?;
    if values.len() != row_count {
        return reader.fail("a column does not have as many values as the chunk has rows");
    }
    match encoding as u64 {
        PLAIN => {}
        DELTA => {
            let mut previous = 0i64;
            for value in &mut values {
                if let Value::Int(delta) = value {
                    previous = previous.wrapping_add(*delta);
                    *delta = previous;
                }
            }
        }
        _ => return reader.fail("a column encoding that this version does not know"),
    }
    Ok(values)
}

/// The digest of a snapshot: SHA-256 over the SHA-256 of each chunk body, in order of chunk number.
///
/// Bodies are hashed before compression. Gateway and consumer may add chunks in any order:
///
/// ```
/// use walgate_wire::ChunkDigest;
///
/// let mut sent = ChunkDigest::default();
/// sent.add(0, ChunkDigest::of(b"first"));
/// sent.add(1, ChunkDigest::of(b"second"));
/// let mut received = ChunkDigest::default();
/// received.add(1, ChunkDigest::of(b"second"));
/// received.add(0, ChunkDigest::of(b"first"));
/// assert_eq!(sent.finish(), received.finish());
/// ```
#[derive(Debug, Default)]
pub struct ChunkDigest {
    digests: BTreeMap<u64, [u8; 32]>,
}

impl ChunkDigest {
    /// The SHA-256 of one chunk body before compression.
    pub fn of(body: &[u8]) -> [u8; 32] {
        Sha256::digest(body).into()
    }

    /// Adds a chunk. Returns false if its number was there already; the new digest replaces the
    /// old.
    pub fn add(&mut self, number: u64, digest: [u8; 32]) -> bool {
        self.digests.insert(number, digest).is_none()
    }

    /// Whether the chunk of this number was added.
    pub fn contains(&self, number: u64) -> bool {
        self.digests.contains_key(&number)
    }

    /// Number of chunks that were added.
    pub fn count(&self) -> u64 {
        self.digests.len() as u64
    }

    /// The snapshot's digest so far, as 64 lower-case hex digits.
    pub fn finish(&self) -> String {
        let mut hasher = Sha256::new();
        self.digests.values().for_each(|digest| hasher.update(digest));
        hex::encode(&hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_round_trip(rows in prop::collection::vec((any::<Option<i64>>(), any::<String>(), any::<bool>()), 0..50)) {
            let mut writer = ChunkWriter::new(&[true, false]);
            for (id, text, infinite) in &rows {
                match id {
                    _ if *infinite => pack::str(&mut writer.columns[0].out, "infinity"),
                    Some(id) => writer.columns[0].int(*id),
                    None => pack::nil(&mut writer.columns[0].out),
                }
                pack::str(&mut writer.columns[1].out, text);
                writer.end_row();
            }
            let mut body = Vec::new();
            writer.finish(&mut body);
            let chunk = decode_chunk(&body, 2, &Caps::default()).unwrap();
            let expected: Vec<_> = rows.iter().map(|(id, text, infinite)| {
                let id = if *infinite { Value::Str("infinity") } else { id.map_or(Value::Nil, Value::Int) };
                vec![id, Value::Str(text)]
            }).collect();
            prop_assert_eq!(chunk.into_rows().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn garbage_is_refused_not_panicked(body: Vec<u8>, columns in 0usize..4) {
            let _ = decode_chunk(&body, columns, &Caps::default());
        }
    }

    #[test]
    fn digests_do_not_depend_on_arrival() {
        let mut a = ChunkDigest::default();
        let mut b = ChunkDigest::default();
        a.add(0, [1; 32]);
        a.add(1, [2; 32]);
        b.add(1, [2; 32]);
        b.add(0, [1; 32]);
        assert!(!b.add(0, [1; 32]));
        assert_eq!(a.finish(), b.finish());
        assert_eq!(b.count(), 2);
    }
}
