//! Arrays, composites, hstores and vectors: a small reader of the MessagePack that the wire carries. Reads in
//! place and allocates nothing. Nothing is written here.

use std::str;

/// One MessagePack value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packed<'a>(pub &'a [u8]);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bin(&'a [u8]),
    Array(Array<'a>),
    Map(Map<'a>),
}

/// An iterator over the elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    left: usize,
    bytes: &'a [u8],
}

/// An iterator over pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Map<'a>(Array<'a>);

impl<'a> Packed<'a> {
    /// `None` if this is no MessagePack.
    pub fn value(self) -> Option<Value<'a>> {
        read(self.0).map(|(value, _)| value)
    }

    /// The elements of an array; nothing if it is none.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        match self.value() {
            Some(Value::Array(array)) => array,
            _ => Array { left: 0, bytes: &[] },
        }
    }

    /// The member of a composite or hstore.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        match self.value()? {
            Value::Map(map) => map.get(name),
            _ => None,
        }
    }
}

impl<'a> Value<'a> {
    pub fn as_str(self) -> Option<&'a str> {
        if let Value::Str(text) = self { Some(text) } else { None }
    }

    pub fn as_int(self) -> Option<i64> {
        if let Value::Int(number) = self { Some(number) } else { None }
    }
}

impl<'a> Map<'a> {
    pub fn get(mut self, name: &str) -> Option<Value<'a>> {
        self.find_map(|(key, value)| (key == Value::Str(name)).then_some(value))
    }
}

impl<'a> Iterator for Array<'a> {
    type Item = Value<'a>;

    /// Ends early where the bytes are not MessagePack.
    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (value, len) = read(self.bytes)?;
        self.bytes = self.bytes.get(len..)?;
        Some(value)
    }
}

impl<'a> Iterator for Map<'a> {
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

/// What a value begins with.
enum Head<'a> {
    Scalar(Value<'a>),
    /// So many bytes of text or of anything.
    Str(usize),
    Bin(usize),
    /// So many elements, or pairs.
    Array(usize),
    Map(usize),
}

/// The value at the beginning and how many bytes it takes.
fn read(bytes: &[u8]) -> Option<(Value<'_>, usize)> {
    let (head, at) = head(bytes)?;
    let take = |len: usize| bytes.get(at..at.checked_add(len)?);
    Some(match head {
        Head::Scalar(value) => (value, at),
        Head::Str(len) => (Value::Str(str::from_utf8(take(len)?).ok()?), at + len),
        Head::Bin(len) => (Value::Bin(take(len)?), at + len),
        Head::Array(left) => {
            let end = skip(bytes, at, left)?;
            (Value::Array(Array { left, bytes: &bytes[at..end] }), end)
        }
        Head::Map(pairs) => {
            let left = pairs.checked_mul(2)?;
            let end = skip(bytes, at, left)?;
            (Value::Map(Map(Array { left, bytes: &bytes[at..end] })), end)
        }
    })
}

/// Where so many values end. A loop: depth costs no stack.
fn skip(bytes: &[u8], mut at: usize, mut left: usize) -> Option<usize> {
    while left > 0 {
        left -= 1;
        let (head, len) = head(bytes.get(at..)?)?;
        at += len;
        match head {
            Head::Scalar(_) => {}
            Head::Str(len) | Head::Bin(len) => at = at.checked_add(len)?,
            Head::Array(elements) => left = left.checked_add(elements)?,
            Head::Map(pairs) => left = left.checked_add(pairs.checked_mul(2)?)?,
        }
    }
    (at <= bytes.len()).then_some(at)
}

fn head(bytes: &[u8]) -> Option<(Head<'_>, usize)> {
    let (marker, rest) = bytes.split_first()?;
    let number = |width: usize| -> Option<u64> {
        Some(rest.get(..width)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    };
    let len = |width: usize| Some((number(width)? as usize, 1 + width));
    let scalar = |value, width: usize| Some((Head::Scalar(value), 1 + width));
    let int = |value, width: usize| scalar(Value::Int(value), width);
    match marker {
        0x00..=0x7f => int((*marker).into(), 0),
        0xe0..=0xff => int((*marker as i8).into(), 0),
        0x80..=0x8f => Some((Head::Map((marker & 0x0f).into()), 1)),
        0x90..=0x9f => Some((Head::Array((marker & 0x0f).into()), 1)),
        0xa0..=0xbf => Some((Head::Str((marker & 0x1f).into()), 1)),
        0xc0 => scalar(Value::Nil, 0),
        0xc2 | 0xc3 => scalar(Value::Bool(*marker == 0xc3), 0),
        0xc4..=0xc6 => len(1 << (marker - 0xc4)).map(|(n, at)| (Head::Bin(n), at)),
        0xca => scalar(Value::Float(f32::from_bits(number(4)? as u32).into()), 4),
        0xcb => scalar(Value::Float(f64::from_bits(number(8)?)), 8),
        0xcc => int(number(1)? as i64, 1),
        0xcd => int(number(2)? as i64, 2),
        0xce => int(number(4)? as i64, 4),
        0xcf => int(i64::try_from(number(8)?).ok()?, 8),
        0xd0 => int((number(1)? as i8).into(), 1),
        0xd1 => int((number(2)? as i16).into(), 2),
        0xd2 => int((number(4)? as i32).into(), 4),
        0xd3 => int(number(8)? as i64, 8),
        0xd9..=0xdb => len(1 << (marker - 0xd9)).map(|(n, at)| (Head::Str(n), at)),
        0xdc | 0xdd => len(2 << (marker - 0xdc)).map(|(n, at)| (Head::Array(n), at)),
        0xde | 0xdf => len(2 << (marker - 0xde)).map(|(n, at)| (Head::Map(n), at)),
        // Extensions, and the marker that is never used: not on this wire.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_arrays_and_maps() {
        // [["a", nil], [1, -1, 300]]
        let bytes = [0x92, 0x92, 0xa1, b'a', 0xc0, 0x93, 1, 0xff, 0xcd, 1, 44];
        let mut rows = Packed(&bytes).elements();
        let Some(Value::Array(first)) = rows.next() else { panic!() };
        assert_eq!(first.collect::<Vec<_>>(), [Value::Str("a"), Value::Nil]);
        let Some(Value::Array(second)) = rows.next() else { panic!() };
        assert_eq!(second.filter_map(Value::as_int).collect::<Vec<_>>(), [1, -1, 300]);
        assert_eq!(rows.next(), None);

        let map = [0x82, 0xa1, b'k', 0xc3, 0xa1, b'l', 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0];
        assert_eq!(Packed(&map).get("l"), Some(Value::Float(1.5)));
        assert_eq!(Packed(&map).get("m"), None);
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = vec![0x91; 1 << 20];
        assert_eq!(Packed(&deep).value(), None);
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            for value in Packed(&bytes).elements() {
                if let Value::Map(map) = value {
                    map.count();
                }
            }
        }
    }
}
