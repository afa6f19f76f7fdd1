//! Reads MessagePack from untrusted bodies, within caps. Every length is checked before it is used.
//!
//! Values borrow from the body. This module does not know what a value means in a table.

use std::fmt;

use crate::{marker, pack};

/// One MessagePack value, for instance that of a column in a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// The SQL NULL, or a value that was not sent.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer. Numbers above 2⁶³ - 1 are refused.
    Int(i64),
    /// A 32-bit float.
    F32(f32),
    /// A 64-bit float.
    F64(f64),
    /// A string.
    Str(&'a str),
    /// A byte string.
    Bin(&'a [u8]),
    /// An array.
    Array(Vec<Value<'a>>),
    /// A map, as pairs of key and value in the order of the body.
    Map(Vec<(Value<'a>, Value<'a>)>),
}

impl Value<'_> {
    /// Whether the value is nil.
    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil)
    }

    /// Appends the value. Floats keep their width, integers and lengths take their shortest form.
    pub fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Value::Nil => pack::nil(out),
            Value::Bool(value) => pack::bool(out, *value),
            Value::Int(value) => pack::int(out, *value),
            Value::F32(value) => pack::f32_bits(out, value.to_be_bytes()),
            Value::F64(value) => pack::f64_bits(out, value.to_be_bytes()),
            Value::Str(value) => pack::str(out, value),
            Value::Bin(value) => pack::bin(out, value),
            Value::Array(items) => Value::pack_row(items, out),
            Value::Map(pairs) => {
                pack::map(out, pairs.len());
                for (key, value) in pairs {
                    key.pack(out);
                    value.pack(out);
                }
            }
        }
    }

    /// Appends a row as an array of its values.
    pub fn pack_row(row: &[Value<'_>], out: &mut Vec<u8>) {
        pack::array(out, row.len());
        row.iter().for_each(|value| value.pack(out));
    }
}

/// Limits on what decoders accept.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Most bytes of a body, after parts are joined and the frame is decompressed.
    ///
    /// Default: 1 GiB + 64 MiB, because a Postgres field holds up to 1 GiB.
    pub body_bytes_max: usize,
    /// Deepest nesting of arrays and maps. Default: 64.
    pub depth_max: usize,
    /// Most values in a body, including those in arrays and maps. A value takes 32 bytes of memory.
    ///
    /// Default: 2²⁷ + 2²⁴, because a Postgres array holds up to 2²⁷ - 1 elements.
    pub values_max: usize,
    /// Largest compression ratio. A frame may declare at most this times its own size, or 16 MiB.
    ///
    /// Default: 4096. Frames of real rows stay below 200; a run of one byte can reach 30,000.
    pub ratio_max: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Caps {
            body_bytes_max: (1 << 30) + (64 << 20),
            depth_max: 64,
            values_max: (1 << 27) + (1 << 24),
            ratio_max: 4096,
        }
    }
}

/// A body that does not conform to the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("body is malformed at byte {at}: {what}")]
pub struct DecodeError {
    /// Offset into the decompressed body, in bytes, where the decoder stopped.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Reads the values of a body one after the other.
///
/// All methods return an error if the body ends too early, is malformed, or exceeds the caps.
pub struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    depth_left: usize,
    values_left: usize,
}

/// Values of a list for which memory is reserved at once. A longer list grows as it is read.
const RESERVED_MAX: usize = 64;

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader at {} of {}", self.at, self.body.len())
    }
}

impl<'a> Reader<'a> {
    /// A reader at the start of `body`.
    pub fn new(body: &'a [u8], caps: &Caps) -> Self {
        Reader { body, at: 0, depth_left: caps.depth_max, values_left: caps.values_max }
    }

    /// Whether the whole body was read.
    pub fn is_empty(&self) -> bool {
        self.at == self.body.len()
    }

    pub(crate) fn fail<T>(&self, what: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError { at: self.at, what })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.body.len());
        let Some(end) = end else { return self.fail("the body ends in the middle of a value") };
        let bytes = &self.body[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    fn len8(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(self.take_array::<1>()?[0]))
    }

    fn len16(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(u16::from_be_bytes(self.take_array()?)))
    }

    fn len32(&mut self) -> Result<usize, DecodeError> {
        Ok(u32::from_be_bytes(self.take_array()?) as usize)
    }

    /// Reads the header of an array and returns its length.
    ///
    /// Every element takes at least a byte. Therefore a length beyond the rest of the body is
    /// refused before memory is allocated for it.
    pub fn array(&mut self) -> Result<usize, DecodeError> {
        let len = match self.take_array::<1>()?[0] {
            first @ marker::FIXARRAY..=marker::FIXARRAY_MAX => usize::from(first & 0x0f),
            marker::ARRAY16 => self.len16()?,
            marker::ARRAY32 => self.len32()?,
            _ => return self.fail("expected an array"),
        };
        self.check_len(len)
    }

    fn check_len(&self, len: usize) -> Result<usize, DecodeError> {
        if len > self.body.len() - self.at {
            self.fail("an array is longer than the body")
        } else {
            Ok(len)
        }
    }

    /// Reads an integer.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        match self.value()? {
            Value::Int(i) => Ok(i),
            _ => self.fail("expected an integer"),
        }
    }

    /// Reads a string.
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        match self.value()? {
            Value::Str(s) => Ok(s),
            _ => self.fail("expected a string"),
        }
    }

    /// Skips a nil, and returns whether there was one.
    pub fn nil(&mut self) -> bool {
        let is_nil = self.body.get(self.at) == Some(&marker::NIL);
        self.at += usize::from(is_nil);
        is_nil
    }

    /// Reads a row, an array of values.
    pub fn row(&mut self) -> Result<Vec<Value<'a>>, DecodeError> {
        let len = self.array()?;
        self.read_list(len, Self::value)
    }

    /// Reads a value of any type.
    pub fn value(&mut self) -> Result<Value<'a>, DecodeError> {
        let first = self.take_array::<1>()?[0];
        let Some(left) = self.values_left.checked_sub(1) else {
            return self.fail("more values than the cap allows");
        };
        self.values_left = left;
        Ok(match first {
            0..=marker::FIXINT_MAX => Value::Int(i64::from(first)),
            marker::NEGATIVE_FIXINT..=0xff => Value::Int(i64::from(first as i8)),
            marker::NIL => Value::Nil,
            marker::FALSE => Value::Bool(false),
            marker::TRUE => Value::Bool(true),
            marker::UINT8..=marker::INT64 => Value::Int(self.int_of(first)?),
            marker::FLOAT32 => Value::F32(f32::from_be_bytes(self.take_array()?)),
            marker::FLOAT64 => Value::F64(f64::from_be_bytes(self.take_array()?)),
            marker::FIXSTR..=marker::FIXSTR_MAX => self.text(usize::from(first & 0x1f))?,
            marker::STR8..=marker::STR32 => {
                let len = self.len_of(first - marker::STR8)?;
                self.text(len)?
            }
            marker::BIN8..=marker::BIN32 => {
                let len = self.len_of(first - marker::BIN8)?;
                Value::Bin(self.take(len)?)
            }
            marker::FIXARRAY..=marker::FIXARRAY_MAX => self.elements(usize::from(first & 0x0f))?,
            marker::ARRAY16 | marker::ARRAY32 => {
                let len = self.len_of(first - marker::ARRAY16 + 1)?;
                self.elements(len)?
            }
            marker::FIXMAP..=marker::FIXMAP_MAX => self.pairs(usize::from(first & 0x0f))?,
            marker::MAP16 | marker::MAP32 => {
                let len = self.len_of(first - marker::MAP16 + 1)?;
                self.pairs(len)?
            }
            _ => return self.fail("a marker that the protocol does not use"),
        })
    }

    #[inline]
    fn int_of(&mut self, first: u8) -> Result<i64, DecodeError> {
        Ok(match first {
            marker::UINT8 => i64::from(u8::from_be_bytes(self.take_array()?)),
            marker::UINT16 => i64::from(u16::from_be_bytes(self.take_array()?)),
            marker::UINT32 => i64::from(u32::from_be_bytes(self.take_array()?)),
            marker::UINT64 => match i64::try_from(u64::from_be_bytes(self.take_array()?)) {
                Ok(value) => value,
                Err(_) => return self.fail("an integer is above 2^63-1"),
            },
            marker::INT8 => i64::from(i8::from_be_bytes(self.take_array()?)),
            marker::INT16 => i64::from(i16::from_be_bytes(self.take_array()?)),
            marker::INT32 => i64::from(i32::from_be_bytes(self.take_array()?)),
            _ => i64::from_be_bytes(self.take_array()?),
        })
    }

    /// Reads a length of 2^`log2` bytes.
    fn len_of(&mut self, log2: u8) -> Result<usize, DecodeError> {
        match log2 {
            0 => self.len8(),
            1 => self.len16(),
            _ => self.len32(),
        }
    }

    fn text(&mut self, len: usize) -> Result<Value<'a>, DecodeError> {
        let bytes = self.take(len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::Str(text)),
            Err(_) => self.fail("a string is not UTF-8"),
        }
    }

    fn elements(&mut self, len: usize) -> Result<Value<'a>, DecodeError> {
        self.read_nested(len, Self::value).map(Value::Array)
    }

    fn pairs(&mut self, len: usize) -> Result<Value<'a>, DecodeError> {
        self.read_nested(len, |reader| Ok((reader.value()?, reader.value()?))).map(Value::Map)
    }

    fn read_list<T>(
        &mut self,
        len: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut items = Vec::with_capacity(len.min(RESERVED_MAX));
        for _ in 0..len {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// Reads a list one level below the current one.
    fn read_nested<T>(
        &mut self,
        len: usize,
        read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.check_len(len)?;
        let Some(left) = self.depth_left.checked_sub(1) else {
            return self.fail("arrays and maps are nested too deeply");
        };
        self.depth_left = left;
        let result = self.read_list(len, read);
        self.depth_left += 1;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Tree {
        Nil,
        Bool(bool),
        Int(i64),
        Float(f64),
        Str(String),
        Bin(Vec<u8>),
        Array(Vec<Tree>),
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just(Tree::Nil),
            any::<bool>().prop_map(Tree::Bool),
            any::<i64>().prop_map(Tree::Int),
            (-300i64..70000).prop_map(Tree::Int),
            any::<f64>().prop_map(Tree::Float),
            any::<String>().prop_map(Tree::Str),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Tree::Bin),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop::collection::vec(inner, 0..20).prop_map(Tree::Array)
        })
    }

    fn write(tree: &Tree, out: &mut Vec<u8>) {
        match tree {
            Tree::Nil => pack::nil(out),
            Tree::Bool(b) => pack::bool(out, *b),
            Tree::Int(i) => pack::int(out, *i),
            Tree::Float(f) => pack::f64_bits(out, f.to_be_bytes()),
            Tree::Str(s) => pack::str(out, s),
            Tree::Bin(b) => pack::bin(out, b),
            Tree::Array(items) => {
                pack::array(out, items.len());
                items.iter().for_each(|item| write(item, out));
            }
        }
    }

    fn same(tree: &Tree, value: &Value<'_>) -> bool {
        match (tree, value) {
            (Tree::Nil, Value::Nil) => true,
            (Tree::Bool(a), Value::Bool(b)) => a == b,
            (Tree::Int(a), Value::Int(b)) => a == b,
            (Tree::Float(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
            (Tree::Str(a), Value::Str(b)) => a == b,
            (Tree::Bin(a), Value::Bin(b)) => a == b,
            (Tree::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read(tree in tree()) {
            let mut out = Vec::new();
            write(&tree, &mut out);
            let mut reader = Reader::new(&out, &Caps::default());
            let value = reader.value().unwrap();
            prop_assert!(same(&tree, &value));
            prop_assert!(reader.is_empty());
            let mut again = Vec::new();
            value.pack(&mut again);
            prop_assert_eq!(again, out);
        }

        #[test]
        fn garbage_is_refused_not_panicked(body: Vec<u8>) {
            let _ = Reader::new(&body, &Caps::default()).value();
        }
    }

    #[test]
    fn a_length_beyond_the_body_allocates_nothing() {
        for lying in [
            &[0xdd, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdf, 0xff, 0xff, 0xff, 0xff],
            &[0xc6, 0x7f, 0, 0, 0],
        ] {
            assert!(Reader::new(lying, &Caps::default()).value().is_err());
        }
    }

    #[test]
    fn values_are_counted_wherever_they_stand() {
        let caps = Caps { values_max: 4, ..Caps::default() };
        let three = [0x92, 0x91, 0xc0, 0xc0];
        assert!(Reader::new(&three, &caps).value().is_ok());
        let four = [0x92, 0x91, 0xc0, 0x91, 0xc0];
        let error = Reader::new(&four, &caps).value().unwrap_err();
        assert_eq!(error.what, "more values than the cap allows");
    }

    #[test]
    fn nesting_is_capped() {
        let deep = vec![0x91; 100_000];
        let error = Reader::new(&deep, &Caps::default()).value().unwrap_err();
        assert_eq!(error.what, "arrays and maps are nested too deeply");
    }
}
