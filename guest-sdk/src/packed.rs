//! Arrays, composites, hstores and vectors: a small MessagePack reader.
//!
//! It reads in place and allocates nothing. This module does not write MessagePack, and does not
//! know the types of elements.

use std::str;

/// A value of an array, composite, hstore or vector column, as MessagePack.
///
/// ```
/// # use walgate_guest::prelude::*;
/// #[derive(Columns)]
/// struct Post<'a> { tags: Packed<'a>, author: Packed<'a> }
///
/// #[transform(add("first_tag", "text"), add("author_name", "text"))]
/// fn posts(post: Post<'_>, out: &mut Out<'_>) -> Verdict {
///     out.first_tag(post.tags.elements().next().and_then(PackedValue::as_str));
///     out.author_name(post.author.get("name").and_then(PackedValue::as_str));
///     Verdict::Keep
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packed<'a>(pub &'a [u8]);

/// A decoded MessagePack value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PackedValue<'a> {
    /// NULL.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer; also a timestamp in µs since 1970, a date in days, a time in µs since midnight.
    Int(i64),
    /// A float of either width.
    Float(f64),
    /// A string; also a numeric, and any other type that is transferred as text.
    Str(&'a str),
    /// A bytea, or the 16 bytes of a UUID.
    Bin(&'a [u8]),
    /// An array.
    Array(PackedArray<'a>),
    /// A composite or hstore.
    Map(PackedMap<'a>),
}

/// An iterator over the elements of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PackedArray<'a> {
    left: usize,
    bytes: &'a [u8],
}

/// An iterator over the members of a map, as pairs of key and value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PackedMap<'a>(PackedArray<'a>);

impl<'a> Packed<'a> {
    /// Decodes the value. `None` if it is not MessagePack.
    pub fn value(self) -> Option<PackedValue<'a>> {
        read_value(self.0).map(|(value, _)| value)
    }

    /// The elements of an array. For any other value, no elements.
    pub fn elements(self) -> impl Iterator<Item = PackedValue<'a>> {
        match self.value() {
            Some(PackedValue::Array(array)) => array,
            _ => PackedArray { left: 0, bytes: &[] },
        }
    }

    /// The member `name` of a composite or hstore, if there is one.
    pub fn get(self, name: &str) -> Option<PackedValue<'a>> {
        match self.value()? {
            PackedValue::Map(map) => map.get(name),
            _ => None,
        }
    }
}

impl<'a> PackedValue<'a> {
    /// The string, if it is one.
    pub fn as_str(self) -> Option<&'a str> {
        if let PackedValue::Str(text) = self { Some(text) } else { None }
    }

    /// The integer, if it is one.
    pub fn as_int(self) -> Option<i64> {
        if let PackedValue::Int(number) = self { Some(number) } else { None }
    }
}

impl<'a> PackedMap<'a> {
    /// The member `name`, if there is one.
    pub fn get(mut self, name: &str) -> Option<PackedValue<'a>> {
        self.find_map(|(key, value)| (key == PackedValue::Str(name)).then_some(value))
    }
}

impl<'a> Iterator for PackedArray<'a> {
    type Item = PackedValue<'a>;

    /// Ends early if the bytes are not MessagePack.
    fn next(&mut self) -> Option<PackedValue<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (value, len) = read_value(self.bytes)?;
        self.bytes = self.bytes.get(len..)?;
        Some(value)
    }
}

impl<'a> Iterator for PackedMap<'a> {
    type Item = (PackedValue<'a>, PackedValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

/// The head of a value: all of a scalar, or the length of the others.
enum Head<'a> {
    Scalar(PackedValue<'a>),
    /// Number of bytes.
    Str(usize),
    /// Number of bytes.
    Bin(usize),
    /// Number of elements.
    Array(usize),
    /// Number of pairs.
    Map(usize),
}

/// The first value, and its number of bytes.
fn read_value(bytes: &[u8]) -> Option<(PackedValue<'_>, usize)> {
    let (head, at) = read_head(bytes)?;
    let take = |len: usize| bytes.get(at..at.checked_add(len)?);
    Some(match head {
        Head::Scalar(value) => (value, at),
        Head::Str(len) => (PackedValue::Str(str::from_utf8(take(len)?).ok()?), at + len),
        Head::Bin(len) => (PackedValue::Bin(take(len)?), at + len),
        Head::Array(left) => {
            let end = skip_values(bytes, at, left)?;
            (PackedValue::Array(PackedArray { left, bytes: &bytes[at..end] }), end)
        }
        Head::Map(pairs) => {
            let left = pairs.checked_mul(2)?;
            let end = skip_values(bytes, at, left)?;
            (PackedValue::Map(PackedMap(PackedArray { left, bytes: &bytes[at..end] })), end)
        }
    })
}

/// The end of `left` values that begin at `at`. It is a loop, so that deep nesting needs no stack.
fn skip_values(bytes: &[u8], mut at: usize, mut left: usize) -> Option<usize> {
    while left > 0 {
        left -= 1;
        let (head, len) = read_head(bytes.get(at..)?)?;
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

/// The head of the first value, and the number of bytes of the head.
fn read_head(bytes: &[u8]) -> Option<(Head<'_>, usize)> {
    let (marker, rest) = bytes.split_first()?;
    let number = |width: usize| -> Option<u64> {
        Some(rest.get(..width)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    };
    let len = |width: usize| Some((number(width)? as usize, 1 + width));
    let scalar = |value, width: usize| Some((Head::Scalar(value), 1 + width));
    let int = |value, width: usize| scalar(PackedValue::Int(value), width);
    match marker {
        0x00..=0x7f => int((*marker).into(), 0),
        0xe0..=0xff => int((*marker as i8).into(), 0),
        0x80..=0x8f => Some((Head::Map((marker & 0x0f).into()), 1)),
        0x90..=0x9f => Some((Head::Array((marker & 0x0f).into()), 1)),
        0xa0..=0xbf => Some((Head::Str((marker & 0x1f).into()), 1)),
        0xc0 => scalar(PackedValue::Nil, 0),
        0xc2 | 0xc3 => scalar(PackedValue::Bool(*marker == 0xc3), 0),
        0xc4..=0xc6 => len(1 << (marker - 0xc4)).map(|(n, at)| (Head::Bin(n), at)),
        0xca => scalar(PackedValue::Float(f32::from_bits(number(4)? as u32).into()), 4),
        0xcb => scalar(PackedValue::Float(f64::from_bits(number(8)?)), 8),
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
        // Extensions and 0xc1, which the gateway does not send.
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
        let Some(PackedValue::Array(first)) = rows.next() else { panic!() };
        assert_eq!(first.collect::<Vec<_>>(), [PackedValue::Str("a"), PackedValue::Nil]);
        let Some(PackedValue::Array(second)) = rows.next() else { panic!() };
        assert_eq!(second.filter_map(PackedValue::as_int).collect::<Vec<_>>(), [1, -1, 300]);
        assert_eq!(rows.next(), None);

        let map = [0x82, 0xa1, b'k', 0xc3, 0xa1, b'l', 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0];
        assert_eq!(Packed(&map).get("l"), Some(PackedValue::Float(1.5)));
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
                if let PackedValue::Map(map) = value {
                    map.count();
                }
            }
        }
    }
}
