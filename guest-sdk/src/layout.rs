//! The frame that both flat buffers share: numbers, sections, the directory. Reading checks everything and
//! never panics; what the sections mean is `batch`'s and `decisions`' business. Little-endian throughout.

use crate::Kind;

pub const BATCH_MAGIC: [u8; 4] = *b"WGB1";
pub const DECISIONS_MAGIC: [u8; 4] = *b"WGD1";
pub const HEADER_BYTES: usize = 24;
pub const ENTRY_BYTES: usize = 16;

/// Bits 0–1 of a row's flags: snapshot row 0, insert 1, update 2, delete 3.
pub const FLAG_OP: u8 = 3;
/// The row as it was before.
pub const FLAG_OLD: u8 = 4;
/// Only the key is there; the guest is not asked.
pub const FLAG_KEY_ONLY: u8 = 8;
/// The row before this one is this row's old image.
pub const FLAG_HAS_OLD: u8 = 16;

pub const STATE_NULL: u8 = 0;
pub const STATE_VALUE: u8 = 1;
/// In a batch: *unchanged*. In decisions: *untouched*.
pub const STATE_UNCHANGED: u8 = 2;
/// In a batch only.
pub const STATE_ABSENT: u8 = 3;

pub const VERDICT_DROP: u8 = 0;
pub const VERDICT_KEEP: u8 = 1;
pub const VERDICT_ERROR: u8 = 2;

/// Why a buffer is not what it should be.
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

/// One entry of the directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    pub kind: Kind,
    pub states: usize,
    pub data: usize,
    pub data_len: usize,
}

/// A buffer that is read by offsets.
#[derive(Clone, Copy, Debug)]
pub struct Flat<'a>(pub &'a [u8]);

impl<'a> Flat<'a> {
    /// Refuses a buffer with another magic number or without room for the header.
    pub fn open(bytes: &'a [u8], magic: [u8; 4]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_BYTES || bytes[..4] != magic {
            return malformed(format!(
                "a buffer of {} bytes that does not begin with {}",
                bytes.len(),
                String::from_utf8_lossy(&magic)
            ));
        }
        Ok(Flat(bytes))
    }

    pub fn number(self, at: usize) -> Result<usize, Malformed> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<4>());
        match bytes {
            Some(bytes) => Ok(u32::from_le_bytes(*bytes) as usize),
            None => malformed(format!("a number at {at} of {}", self.0.len())),
        }
    }

    /// A section: begins at a multiple of 8.
    pub fn section(self, at: usize, len: usize) -> Result<&'a [u8], Malformed> {
        let section = at.checked_add(len).and_then(|end| self.0.get(at..end));
        match section {
            Some(section) if at.is_multiple_of(8) => Ok(section),
            _ => malformed(format!("a section of {len} bytes at {at} of {}", self.0.len())),
        }
    }

    pub fn entry(self, index: usize) -> Result<Entry, Malformed> {
        let at = index
            .checked_mul(ENTRY_BYTES)
            .and_then(|at| at.checked_add(HEADER_BYTES))
            .ok_or_else(|| Malformed(format!("{index} columns")))?;
        let kind = self.number(at)?;
        let Some(kind) = u8::try_from(kind).ok().and_then(Kind::from_number) else {
            return malformed(format!("column {index} of kind {kind}"));
        };
        let [states, data, data_len] =
            [self.number(at + 4)?, self.number(at + 8)?, self.number(at + 12)?];
        Ok(Entry { kind, states, data, data_len })
    }
}

/// Values of one column.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    Boolean(&'a [u8]),
    Integer(&'a [[u8; 8]]),
    Float(&'a [[u8; 8]]),
    Text(Pieces<'a, str>),
    Bytes(Pieces<'a, [u8]>),
    Uuid(&'a [[u8; 16]]),
    Timestamp(&'a [[u8; 8]]),
    Date(&'a [[u8; 8]]),
    Time(&'a [[u8; 8]]),
    Packed(Pieces<'a, [u8]>),
}

/// Values of different lengths, one behind the other.
#[derive(Debug)]
pub struct Pieces<'a, T: ?Sized> {
    /// One more than rows; the first is 0.
    ends: &'a [[u8; 4]],
    all: &'a T,
}

impl<T: ?Sized> Clone for Pieces<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Pieces<'_, T> {}

impl<'a, T: ?Sized> Pieces<'a, T> {
    #[inline]
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let end = |index: usize| u32::from_le_bytes(self.ends[index]) as usize;
        end(row)..end(row + 1)
    }
}

impl<'a> Pieces<'a, str> {
    #[inline]
    pub fn get(&self, row: usize) -> &'a str {
        &self.all[self.range(row)]
    }
}

impl<'a> Pieces<'a, [u8]> {
    #[inline]
    pub fn get(&self, row: usize) -> &'a [u8] {
        &self.all[self.range(row)]
    }
}

impl<'a> Data<'a> {
    pub fn kind(&self) -> Kind {
        match self {
            Data::Boolean(_) => Kind::Boolean,
            Data::Integer(_) => Kind::Integer,
            Data::Float(_) => Kind::Float,
            Data::Text(_) => Kind::Text,
            Data::Bytes(_) => Kind::Bytes,
            Data::Uuid(_) => Kind::Uuid,
            Data::Timestamp(_) => Kind::Timestamp,
            Data::Date(_) => Kind::Date,
            Data::Time(_) => Kind::Time,
            Data::Packed(_) => Kind::Packed,
        }
    }

    /// Checks the section once, so that reading a row cannot fail.
    pub fn read(flat: Flat<'a>, entry: Entry, rows: usize) -> Result<Self, Malformed> {
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
            Kind::Boolean => Data::Boolean(section),
            Kind::Integer => Data::Integer(eights()),
            Kind::Float => Data::Float(eights()),
            Kind::Timestamp => Data::Timestamp(eights()),
            Kind::Date => Data::Date(eights()),
            Kind::Time => Data::Time(eights()),
            Kind::Uuid => Data::Uuid(section.as_chunks::<16>().0),
            Kind::Bytes => Data::Bytes(pieces(section, rows)?),
            Kind::Packed => Data::Packed(pieces(section, rows)?),
            Kind::Text => Data::Text(text(pieces(section, rows)?)?),
        })
    }
}

fn pieces(section: &[u8], rows: usize) -> Result<Pieces<'_, [u8]>, Malformed> {
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
    Ok(Pieces { ends, all })
}

/// UTF-8 is checked once for all values; then every end must lie between two characters.
fn text(pieces: Pieces<'_, [u8]>) -> Result<Pieces<'_, str>, Malformed> {
    let Ok(all) = std::str::from_utf8(pieces.all) else {
        return malformed("text that is not UTF-8");
    };
    let between = |end: &[u8; 4]| all.is_char_boundary(u32::from_le_bytes(*end) as usize);
    if !all.is_ascii() && !pieces.ends.iter().all(between) {
        return malformed("a text that ends within a character");
    }
    Ok(Pieces { ends: pieces.ends, all })
}
