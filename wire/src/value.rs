//! MessagePack from outside, read with caps: no length is believed before it is checked.
//!
//! Values borrow from the body they were read from. What a value means in a table is not known here.

use std::fmt;

use crate::pack;

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    F32(f32),
    F64(f64),
    Str(&'a str),
    Bin(&'a [u8]),
    Array(Vec<Value<'a>>),
    Map(Vec<(Value<'a>, Value<'a>)>),
}

impl Value<'_> {
    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil)
    }

    /// Appends it as it is read: floats keep their width, integers take their shortest form.
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

    /// An array of values, as a row is.
    pub fn pack_row(row: &[Value<'_>], out: &mut Vec<u8>) {
        pack::array(out, row.len());
        row.iter().for_each(|value| value.pack(out));
    }
}

/// What a decoder accepts.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Largest body after decompression and joining of parts. Default 1 GiB + 64 MiB: a Postgres field
    /// holds up to 1 GiB.
    pub body_bytes_max: usize,
    /// Deepest nesting of arrays and maps. Default 64.
    pub depth_max: usize,
    /// Most values in one body, those inside arrays and maps included; one takes 32 bytes of memory. Default 2²⁷ and
    /// an eighth more: a Postgres array holds 2²⁷ - 1 elements.
    pub values_max: usize,
    /// Compressed size × this bounds the size that a frame may declare, above 16 MiB. Default 4096: zstd of
    /// real rows stays below 200, runs of one byte reach 30,000.
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

/// A body that is not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("body is malformed at byte {at}: {what}")]
pub struct DecodeError {
    pub at: usize,
    pub what: &'static str,
}

/// Reads values one after the other.
pub struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    depth_left: usize,
    values_left: usize,
}

/// Room is made at once for so many values of a list; for more only once they are there.
const RESERVED_MAX: usize = 64;

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader at {} of {}", self.at, self.body.len())
    }
}

impl<'a> Reader<'a> {
    pub fn new(body: &'a [u8], caps: &Caps) -> Self {
        Reader { body, at: 0, depth_left: caps.depth_max, values_left: caps.values_max }
    }

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

    fn be<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    fn len8(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(self.be::<1>()?[0]))
    }

    fn len16(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(u16::from_be_bytes(self.be()?)))
    }

    fn len32(&mut self) -> Result<usize, DecodeError> {
        Ok(u32::from_be_bytes(self.be()?) as usize)
    }

    /// Length of the array that begins here. Every element takes at least a byte, so a length beyond the
    /// rest of the body is refused before anything is allocated for it.
    pub fn array(&mut self) -> Result<usize, DecodeError> {
        let len = match self.be::<1>()?[0] {
            marker @ 0x90..=0x9f => usize::from(marker & 0x0f),
            0xdc => self.len16()?,
            0xdd => self.len32()?,
            _ => return self.fail("expected an array"),
        };
        self.fits(len)
    }

    fn fits(&self, len: usize) -> Result<usize, DecodeError> {
        if len > self.body.len() - self.at {
            self.fail("an array is longer than the body")
        } else {
            Ok(len)
        }
    }

    pub fn int(&mut self) -> Result<i64, DecodeError> {
        match self.value()? {
            Value::Int(i) => Ok(i),
            _ => self.fail("expected an integer"),
        }
    }

    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        match self.value()? {
            Value::Str(s) => Ok(s),
            _ => self.fail("expected a string"),
        }
    }

    /// If a nil begins here, steps over it.
    pub fn nil(&mut self) -> bool {
        let is_nil = self.body.get(self.at) == Some(&0xc0);
        self.at += usize::from(is_nil);
        is_nil
    }

    /// An array of values.
    pub fn row(&mut self) -> Result<Vec<Value<'a>>, DecodeError> {
        let len = self.array()?;
        self.list(len, Self::value)
    }

    pub fn value(&mut self) -> Result<Value<'a>, DecodeError> {
        let marker = self.be::<1>()?[0];
        let Some(left) = self.values_left.checked_sub(1) else {
            return self.fail("more values than the cap allows");
        };
        self.values_left = left;
        Ok(match marker {
            0x00..=0x7f => Value::Int(i64::from(marker)),
            0xe0..=0xff => Value::Int(i64::from(marker as i8)),
            0xc0 => Value::Nil,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xcc => Value::Int(i64::from(u8::from_be_bytes(self.be()?))),
            0xcd => Value::Int(i64::from(u16::from_be_bytes(self.be()?))),
            0xce => Value::Int(i64::from(u32::from_be_bytes(self.be()?))),
            0xcf => match i64::try_from(u64::from_be_bytes(self.be()?)) {
                Ok(value) => Value::Int(value),
                Err(_) => return self.fail("an integer is above 2^63-1"),
            },
            0xd0 => Value::Int(i64::from(i8::from_be_bytes(self.be()?))),
            0xd1 => Value::Int(i64::from(i16::from_be_bytes(self.be()?))),
            0xd2 => Value::Int(i64::from(i32::from_be_bytes(self.be()?))),
            0xd3 => Value::Int(i64::from_be_bytes(self.be()?)),
            0xca => Value::F32(f32::from_be_bytes(self.be()?)),
            0xcb => Value::F64(f64::from_be_bytes(self.be()?)),
            0xa0..=0xbf => self.text(usize::from(marker & 0x1f))?,
            0xd9..=0xdb => {
                let len = self.sized(marker - 0xd9)?;
                self.text(len)?
            }
            0xc4..=0xc6 => {
                let len = self.sized(marker - 0xc4)?;
                Value::Bin(self.take(len)?)
            }
            0x90..=0x9f => self.elements(usize::from(marker & 0x0f))?,
            0xdc | 0xdd => {
                let len = self.sized(marker - 0xdc + 1)?;
                self.elements(len)?
            }
            0x80..=0x8f => self.pairs(usize::from(marker & 0x0f))?,
            0xde | 0xdf => {
                let len = self.sized(marker - 0xde + 1)?;
                self.pairs(len)?
            }
            _ => return self.fail("a marker that the protocol does not use"),
        })
    }

    /// A length of 1, 2 or 4 bytes.
    fn sized(&mut self, log2: u8) -> Result<usize, DecodeError> {
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
        self.nested(len, Self::value).map(Value::Array)
    }

    fn pairs(&mut self, len: usize) -> Result<Value<'a>, DecodeError> {
        self.nested(len, |reader| Ok((reader.value()?, reader.value()?))).map(Value::Map)
    }

    fn list<T>(
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

    fn nested<T>(
        &mut self,
        len: usize,
        read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.fits(len)?;
        let Some(left) = self.depth_left.checked_sub(1) else {
            return self.fail("arrays and maps are nested too deeply");
        };
        self.depth_left = left;
        let result = self.list(len, read);
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
