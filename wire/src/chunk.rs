//! The body of `init.snap`: many rows, column by column.
//!
//! `[1, row_count, columns]`, each column `[encoding, values]`. Encoding 0 holds values as they are. Encoding 1
//! is for integers and times: the first as it is, then each as the difference to the one before it; a nil or
//! a string stands for itself and does not count as the one before.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::{Caps, DecodeError, Reader, Value, pack};

const LAYOUT_COLUMNS: u64 = 1;
const PLAIN: u64 = 0;
const DELTA: u64 = 1;

/// One column while a chunk is gathered; the caller appends exactly one value a row.
#[derive(Debug, Default)]
pub struct Column {
    /// Values so far. Write anything but the integers of a delta column directly here.
    pub out: Vec<u8>,
    delta: bool,
    previous: i64,
}

impl Column {
    /// An integer: the difference in a delta column, the number itself otherwise.
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

/// Gathers rows and writes the chunk. Buffers are reused from chunk to chunk.
#[derive(Debug)]
pub struct ChunkWriter {
    pub columns: Vec<Column>,
    rows: usize,
}

impl ChunkWriter {
    /// `delta[i]`: whether column `i` holds integers that are worth delta coding.
    pub fn new(delta: &[bool]) -> Self {
        let columns = delta.iter().map(|&delta| Column { delta, ..Column::default() }).collect();
        ChunkWriter { columns, rows: 0 }
    }

    /// To be called once a row, after its values.
    pub fn end_row(&mut self) {
        self.rows += 1;
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Size of the body so far, but for its headers.
    pub fn raw_bytes(&self) -> usize {
        self.columns.iter().map(|c| c.out.len()).sum()
    }

    /// Appends the chunk to `out` and begins the next.
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

/// A chunk that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk<'a> {
    pub row_count: usize,
    /// `columns[c][r]`; all of length `row_count`.
    pub columns: Vec<Vec<Value<'a>>>,
}

impl<'a> Chunk<'a> {
    /// Moves the rows out, in order.
    pub fn into_rows(self) -> impl Iterator<Item = Vec<Value<'a>>> {
        let mut columns: Vec<_> = self.columns.into_iter().map(Vec::into_iter).collect();
        (0..self.row_count).map(move |_| columns.iter_mut().filter_map(Iterator::next).collect())
    }
}

/// Reads a decompressed chunk of a table with `columns` columns.
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
    // A table without columns has rows all the same; nothing in the body bounds their number.
    let row_count = usize::try_from(row_count)
        .ok()
        .filter(|&rows| rows <= if columns == 0 { 1 << 24 } else { body.len() });
    let Some(row_count) = row_count else { return reader.fail("a row count beyond the body") };
    let columns = (0..columns).map(|_| column(&mut reader, row_count)).collect::<Result<_, _>>()?;
    if !reader.is_empty() {
        return reader.fail("a chunk is followed by more bytes");
    }
    Ok(Chunk { row_count, columns })
}

fn column<'a>(reader: &mut Reader<'a>, rows: usize) -> Result<Vec<Value<'a>>, DecodeError> {
    if reader.array()? != 2 {
        return reader.fail("a column has two values");
    }
    let encoding = reader.int()?;
    let mut values = reader.row()?;
    if values.len() != rows {
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

/// SHA-256 over the digests of a snapshot's chunk bodies, in order of chunk number.
#[derive(Debug, Default)]
pub struct ChunkDigest {
    digests: BTreeMap<u64, [u8; 32]>,
}

impl ChunkDigest {
    /// The digest of one chunk body before compression.
    pub fn of(body: &[u8]) -> [u8; 32] {
        Sha256::digest(body).into()
    }

    /// Chunks may be added in any order; returns false if this number was there already.
    pub fn add(&mut self, number: u64, digest: [u8; 32]) -> bool {
        self.digests.insert(number, digest).is_none()
    }

    pub fn contains(&self, number: u64) -> bool {
        self.digests.contains_key(&number)
    }

    /// How many chunks were added.
    pub fn count(&self) -> u64 {
        self.digests.len() as u64
    }

    /// In hex.
    pub fn finish(&self) -> String {
        let mut hasher = Sha256::new();
        self.digests.values().for_each(|digest| hasher.update(digest));
        hex(&hasher.finalize())
    }
}

/// Lower-case hex, as every hash on the wire is written.
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = Vec::new();
    push_hex(&mut digits, bytes);
    digits.into_iter().map(char::from).collect()
}

/// Appends the digits of [`hex`].
pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
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
    fn hex_has_two_digits_a_byte() {
        assert_eq!(hex(&[0x00, 0x09, 0xaf, 0xff]), "0009afff");
    }

    #[test]
    fn digests_do_not_depend_on_arrival() {
        let (mut a, mut b) = (ChunkDigest::default(), ChunkDigest::default());
        a.add(0, [1; 32]);
        a.add(1, [2; 32]);
        b.add(1, [2; 32]);
        b.add(0, [1; 32]);
        assert!(!b.add(0, [1; 32]));
        assert_eq!(a.finish(), b.finish());
        assert_eq!(b.count(), 2);
    }
}
