//! MessagePack, written straight into a buffer: the primitives of the hot path.
//!
//! Nothing here can fail and nothing is allocated but the buffer's own growth. Which value of which table is
//! written is the caller's business.

use rmp::Marker;

#[inline]
pub fn nil(out: &mut Vec<u8>) {
    out.push(Marker::Null.to_u8());
}

#[inline]
pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { Marker::True } else { Marker::False }.to_u8());
}

/// The shortest form that holds `value`.
#[inline]
pub fn int(out: &mut Vec<u8>, value: i64) {
    if value >= 0 {
        return uint(out, value as u64);
    }
    if value >= -32 {
        out.push(value as u8);
    } else if let Ok(v) = i8::try_from(value) {
        tagged(out, Marker::I8, &v.to_be_bytes());
    } else if let Ok(v) = i16::try_from(value) {
        tagged(out, Marker::I16, &v.to_be_bytes());
    } else if let Ok(v) = i32::try_from(value) {
        tagged(out, Marker::I32, &v.to_be_bytes());
    } else {
        tagged(out, Marker::I64, &value.to_be_bytes());
    }
}

#[inline]
pub fn uint(out: &mut Vec<u8>, value: u64) {
    if value < 128 {
        out.push(value as u8);
    } else if let Ok(v) = u8::try_from(value) {
        tagged(out, Marker::U8, &[v]);
    } else if let Ok(v) = u16::try_from(value) {
        tagged(out, Marker::U16, &v.to_be_bytes());
    } else if let Ok(v) = u32::try_from(value) {
        tagged(out, Marker::U32, &v.to_be_bytes());
    } else {
        tagged(out, Marker::U64, &value.to_be_bytes());
    }
}

/// `bits` is the value in IEEE 754, as Postgres sends it.
#[inline]
pub fn f32_bits(out: &mut Vec<u8>, bits: [u8; 4]) {
    tagged(out, Marker::F32, &bits);
}

/// `bits` is the value in IEEE 754, as Postgres sends it.
#[inline]
pub fn f64_bits(out: &mut Vec<u8>, bits: [u8; 8]) {
    tagged(out, Marker::F64, &bits);
}

/// `text` must be UTF-8; Postgres vouches for it (client_encoding is UTF8 on every connection).
#[inline]
pub fn str_bytes(out: &mut Vec<u8>, text: &[u8]) {
    str_header(out, text.len());
    out.extend_from_slice(text);
}

#[inline]
pub fn str(out: &mut Vec<u8>, text: &str) {
    str_bytes(out, text.as_bytes());
}

/// What precedes a string of `len` bytes.
#[inline]
pub fn str_header(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=31 => out.push(0xa0 | len as u8),
        32..=0xff => tagged(out, Marker::Str8, &[len as u8]),
        0x100..=0xffff => tagged(out, Marker::Str16, &(len as u16).to_be_bytes()),
        _ => tagged(out, Marker::Str32, &(len as u32).to_be_bytes()),
    }
}

#[inline]
pub fn bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        len @ 0..=0xff => tagged(out, Marker::Bin8, &[len as u8]),
        len @ 0x100..=0xffff => tagged(out, Marker::Bin16, &(len as u16).to_be_bytes()),
        len => tagged(out, Marker::Bin32, &(len as u32).to_be_bytes()),
    }
    out.extend_from_slice(bytes);
}

/// What precedes the `len` values of an array.
#[inline]
pub fn array(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(0x90 | len as u8),
        16..=0xffff => tagged(out, Marker::Array16, &(len as u16).to_be_bytes()),
        _ => tagged(out, Marker::Array32, &(len as u32).to_be_bytes()),
    }
}

/// What precedes the `len` pairs of a map.
#[inline]
pub fn map(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(0x80 | len as u8),
        16..=0xffff => tagged(out, Marker::Map16, &(len as u16).to_be_bytes()),
        _ => tagged(out, Marker::Map32, &(len as u32).to_be_bytes()),
    }
}

#[inline]
fn tagged<const N: usize>(out: &mut Vec<u8>, marker: Marker, bytes: &[u8; N]) {
    // One growth check for both.
    out.reserve(1 + N);
    out.push(marker.to_u8());
    out.extend_from_slice(bytes);
}
