//! The layout that batches and decisions share: header, directory of columns, and sections.
//!
//! All numbers are little-endian. Reading checks every offset and never panics. This module does
//! not know what the sections mean; `batch` and `decisions` do. `docs/GUESTS.md` specifies both.

use crate::Kind;

/// The first bytes of a batch.
pub const BATCH_MAGIC: [u8; 4] = *b"WGB1";
/// The first bytes of decisions.
pub const DECISIONS_MAGIC: [u8; 4] = *b"WGD1";
/// Bytes of the header: the magic number and five u32.
pub const HEADER_BYTES: usize = 24;
/// Bytes of a directory entry. The directory follows the header.
pub const ENTRY_BYTES: usize = 16;

/// Mask of the operation in the flags of a row: snapshot 0, insert 1, update 2, delete 3.
pub const FLAG_OP: u8 = 3;
/// Flag: the row is an old image.
pub const FLAG_OLD: u8 = 4;
/// Flag: only the key of the row is known. The guest's function is not called for it.
pub const FLAG_KEY_ONLY: u8 = 8;
/// Flag: the previous row is the old image of this row.
pub const FLAG_HAS_OLD: u8 = 16;

/// State of a cell: NULL.
pub const STATE_NULL: u8 = 0;
/// State of a cell: it has a value.
pub const STATE_VALUE: u8 = 1;
/// State of a cell: *unchanged* in a batch, *untouched* in decisions.
pub const STATE_UNCHANGED: u8 = 2;
/// State of a cell of a batch: the old row does not contain the column.
pub const STATE_ABSENT: u8 = 3;

/// Verdict of a row: drop.
pub const VERDICT_DROP: u8 = 0;
/// Verdict of a row: keep.
pub const VERDICT_KEEP: u8 = 1;
/// Verdict of a row: the guest returned an error.
pub const VERDICT_ERROR: u8 = 2;

/// What is wrong with a buffer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Malformed(pub String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

pub(crate) fn malformed<T>(reason: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(reason.into()))
}

/// The directory entry of a column. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DirectoryEntry {
    /// The kind of the column.
    pub kind: Kind,
    /// Offset of the section of states; 0 in decisions for a column without any value.
    pub states: usize,
    /// Offset of the section of values.
    pub data: usize,
    /// Length of the section of values.
    pub data_len: usize,
}

/// A buffer whose sections are read by offset.
#[derive(Clone, Copy, Debug)]
pub struct FlatBuffer<'a>(pub &'a [u8]);

impl<'a> FlatBuffer<'a> {
    /// Checks the magic number and the length of the header.
    ///
    /// # Errors
    /// If either is wrong.
    pub fn open(bytes: &'a [u8], magic: [u8; 4]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_BYTES || bytes[..4] != magic {
            return malformed(format!(
                "a buffer of {} bytes that does not begin with {}",
                bytes.len(),
                String::from_utf8_lossy(&magic)
            ));
        }
        Ok(FlatBuffer(bytes))
    }

    /// The u32 at the offset `at`.
    ///
    /// # Errors
    /// If it is outside the buffer.
    pub fn u32_at(self, at: usize) -> Result<usize, Malformed> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<4>());
        match bytes {
            Some(bytes) => Ok(u32::from_le_bytes(*bytes) as usize),
            None => malformed(format!("a number at {at} of {}", self.0.len())),
        }
    }

    /// The section of `len` bytes at the offset `at`.
    ///
    /// # Errors
    /// If it is outside the buffer, or does not begin at a multiple of 8.
    pub fn section(self, at: usize, len: usize) -> Result<&'a [u8], Malformed> {
        let section = at.checked_add(len).and_then(|end| self.0.get(at..end));
        match section {
            Some(section) if at.is_multiple_of(8) => Ok(section),
            _ => malformed(format!("a section of {len} bytes at {at} of {}", self.0.len())),
        }
    }

    /// The directory entry of a column.
    ///
    /// # Errors
    /// If it is outside the buffer, or has an unknown kind.
    pub fn directory_entry(self, index: usize) -> Result<DirectoryEntry, Malformed> {
        let at = index
            .checked_mul(ENTRY_BYTES)
            .and_then(|at| at.checked_add(HEADER_BYTES))
            .ok_or_else(|| Malformed(format!("{index} columns")))?;
        let kind = self.u32_at(at)?;
        let Some(kind) = u8::try_from(kind).ok().and_then(Kind::from_number) else {
            return malformed(format!("column {index} of kind {kind}"));
        };
        let [states, data, data_len] =
            [self.u32_at(at + 4)?, self.u32_at(at + 8)?, self.u32_at(at + 12)?];
        Ok(DirectoryEntry { kind, states, data, data_len })
    }
}

/// The values of a column, one per row, by [`Kind`].
#[derive(Clone, Copy, Debug)]
pub enum ColumnData<'a> {
    /// 0 or 1.
    Boolean(&'a [u8]),
    /// i64.
    Integer(&'a [[u8; 8]]),
    /// f64.
    Float(&'a [[u8; 8]]),
    /// UTF-8.
    Text(VarLenValues<'a, str>),
    /// Any bytes.
    Bytes(VarLenValues<'a, [u8]>),
    /// 16 bytes.
    Uuid(&'a [[u8; 16]]),
    /// i64, µs since 1970.
    Timestamp(&'a [[u8; 8]]),
    /// i64, days since 1970.
    Date(&'a [[u8; 8]]),
    /// i64, µs since midnight.
    Time(&'a [[u8; 8]]),
    /// MessagePack.
    Packed(VarLenValues<'a, [u8]>),
}

/// Values of different lengths, stored one after the other.
#[derive(Debug)]
pub struct VarLenValues<'a, T: ?Sized> {
    /// The end of each value; before them, a 0.
    ends: &'a [[u8; 4]],
    all: &'a T,
}

impl<T: ?Sized> Clone for VarLenValues<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for VarLenValues<'_, T> {}

impl<'a, T: ?Sized> VarLenValues<'a, T> {
    #[inline]
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let end = |index: usize| u32::from_le_bytes(self.ends[index]) as usize;
        end(row)..end(row + 1)
    }
}

impl<'a> VarLenValues<'a, str> {
    /// The value of a row. Panics if there is no such row.
    #[inline]
    pub fn get(&self, row: usize) -> &'a str {
        &self.all[self.range(row)]
    }
}

impl<'a> VarLenValues<'a, [u8]> {
    /// The value of a row. Panics if there is no such row.
    #[inline]
    pub fn get(&self, row: usize) -> &'a [u8] {
        &self.all[self.range(row)]
    }
}

impl<'a> ColumnData<'a> {
    /// The kind of the values.
    pub fn kind(&self) -> Kind {
        match self {
            ColumnData::Boolean(_) => Kind::Boolean,
            ColumnData::Integer(_) => Kind::Integer,
            ColumnData::Float(_) => Kind::Float,
            ColumnData::Text(_) => Kind::Text,
            ColumnData::Bytes(_) => Kind::Bytes,
            ColumnData::Uuid(_) => Kind::Uuid,
            ColumnData::Timestamp(_) => Kind::Timestamp,
            ColumnData::Date(_) => Kind::Date,
            ColumnData::Time(_) => Kind::Time,
            ColumnData::Packed(_) => Kind::Packed,
        }
    }

    /// Reads the section of values of a column of `rows` rows. After that, reading a row cannot
    /// fail.
    ///
    /// # Errors
    /// If the section has another length, or text is not UTF-8.
    pub fn read(
        flat: FlatBuffer<'a>,
        entry: DirectoryEntry,
        rows: usize,
    ) -> Result<Self, Malformed> {
        let section = flat.section(entry.data, entry.data_len)?;
        let fixed = |width: usize| {
            if rows.checked_mul(width) == Some(section.len()) {
                return Ok(());
            }
            malformed(format!("{} bytes for {rows} values of {width}", section.len()))
        };
        if let Some(width) = entry.kind.width() {
            fixed(width)?;
        }
        let eights = || section.as_chunks::<8>().0;
        Ok(match entry.kind {
            Kind::Boolean => ColumnData::Boolean(section),
            Kind::Integer => ColumnData::Integer(eights()),
            Kind::Float => ColumnData::Float(eights()),
            Kind::Timestamp => ColumnData::Timestamp(eights()),
            Kind::Date => ColumnData::Date(eights()),
            Kind::Time => ColumnData::Time(eights()),
            Kind::Uuid => ColumnData::Uuid(section.as_chunks::<16>().0),
            Kind::Bytes => ColumnData::Bytes(read_var_len(section, rows)?),
            Kind::Packed => ColumnData::Packed(read_var_len(section, rows)?),
            Kind::Text => ColumnData::Text(read_text(read_var_len(section, rows)?)?),
        })
    }
}

fn read_var_len(section: &[u8], rows: usize) -> Result<VarLenValues<'_, [u8]>, Malformed> {
    let ends_len = rows.checked_add(1).and_then(|n| n.checked_mul(4));
    let Some((ends, all)) = ends_len.and_then(|len| section.split_at_checked(len)) else {
        return malformed(format!("{} bytes for the ends of {rows} values", section.len()));
    };
    let ends = ends.as_chunks::<4>().0;
    let ascending = ends.is_sorted_by_key(|end| u32::from_le_bytes(*end));
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    if first != [0; 4] || !ascending || u32::from_le_bytes(last) as usize != all.len() {
        return malformed(format!(
            "ends of {rows} values that do not ascend from 0 to {}",
            all.len()
        ));
    }
    Ok(VarLenValues { ends, all })
}

/// Checks UTF-8 once for all values, then that every end is at the boundary of a character.
fn read_text(values: VarLenValues<'_, [u8]>) -> Result<VarLenValues<'_, str>, Malformed> {
    let Ok(all) = std::str::from_utf8(values.all) else {
        return malformed("text that is not UTF-8");
    };
    let between = |end: &[u8; 4]| all.is_char_boundary(u32::from_le_bytes(*end) as usize);
    if !all.is_ascii() && !values.ends.iter().all(between) {
        return malformed("a text that ends within a character");
    }
    Ok(VarLenValues { ends: values.ends, all })
}
