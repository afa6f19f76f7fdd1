//! MessagePack, written straight into a buffer: the primitives of the hot path.
//!
//! Nothing here can fail. The only allocation is the growth of the buffer. This module does not
//! know which table or column a value belongs to.

use crate::marker;

/// Appends nil, the SQL NULL.
#[inline]
pub fn nil(out: &mut Vec<u8>) {
    out.push(marker::NIL);
}

/// Appends a boolean.
#[inline]
pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { marker::TRUE } else { marker::FALSE });
}

/// Appends an integer in the shortest form that holds it.
#[inline]
pub fn int(out: &mut Vec<u8>, value: i64) {
    if value >= 0 {
        return uint(out, value as u64);
    }
    if value >= -32 {
        // The two's complement of -32 to -1 is NEGATIVE_FIXINT and above.
        out.push(value as u8);
    } else if let Ok(v) = i8::try_from(value) {
        with_marker(out, marker::INT8, &v.to_be_bytes());
    } else if let Ok(v) = i16::try_from(value) {
        with_marker(out, marker::INT16, &v.to_be_bytes());
    } else if let Ok(v) = i32::try_from(value) {
        with_marker(out, marker::INT32, &v.to_be_bytes());
    } else {
        with_marker(out, marker::INT64, &value.to_be_bytes());
    }
}

/// Appends an unsigned integer in the shortest form that holds it.
#[inline]
pub fn uint(out: &mut Vec<u8>, value: u64) {
    if value <= u64::from(marker::FIXINT_MAX) {
        out.push(value as u8);
    } else if let Ok(v) = u8::try_from(value) {
        with_marker(out, marker::UINT8, &[v]);
    } else if let Ok(v) = u16::try_from(value) {
        with_marker(out, marker::UINT16, &v.to_be_bytes());
    } else if let Ok(v) = u32::try_from(value) {
        with_marker(out, marker::UINT32, &v.to_be_bytes());
    } else {
        with_marker(out, marker::UINT64, &value.to_be_bytes());
    }
}

/// Appends a 32-bit float. `bits` is big-endian IEEE 754, as Postgres sends it.
#[inline]
pub fn f32_bits(out: &mut Vec<u8>, bits: [u8; 4]) {
    with_marker(out, marker::FLOAT32, &bits);
}

/// Appends a 64-bit float. `bits` is big-endian IEEE 754, as Postgres sends it.
#[inline]
pub fn f64_bits(out: &mut Vec<u8>, bits: [u8; 8]) {
    with_marker(out, marker::FLOAT64, &bits);
}

/// Appends a string. `text` must be UTF-8.
///
/// Text from Postgres is: `client_encoding` is UTF8 on every connection.
#[inline]
pub fn str_bytes(out: &mut Vec<u8>, text: &[u8]) {
    str_header(out, text.len());
    out.extend_from_slice(text);
}

/// Appends a string.
#[inline]
pub fn str(out: &mut Vec<u8>, text: &str) {
    str_bytes(out, text.as_bytes());
}

/// Appends the header of a string of `len` bytes. The caller appends the bytes.
#[inline]
pub fn str_header(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=31 => out.push(marker::FIXSTR | len as u8),
        32..=0xff => with_marker(out, marker::STR8, &[len as u8]),
        0x100..=0xffff => with_marker(out, marker::STR16, &(len as u16).to_be_bytes()),
        _ => with_marker(out, marker::STR32, &(len as u32).to_be_bytes()),
    }
}

/// Appends a byte string.
#[inline]
pub fn bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        len @ 0..=0xff => with_marker(out, marker::BIN8, &[len as u8]),
        len @ 0x100..=0xffff => with_marker(out, marker::BIN16, &(len as u16).to_be_bytes()),
        len => with_marker(out, marker::BIN32, &(len as u32).to_be_bytes()),
    }
    out.extend_from_slice(bytes);
}

/// Appends the header of an array. The caller appends its `len` values.
#[inline]
pub fn array(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(marker::FIXARRAY | len as u8),
        16..=0xffff => with_marker(out, marker::ARRAY16, &(len as u16).to_be_bytes()),
        _ => with_marker(out, marker::ARRAY32, &(len as u32).to_be_bytes()),
    }
}

/// Appends the header of a map. The caller appends its `len` keys and values in turn.
#[inline]
pub fn map(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(marker::FIXMAP | len as u8),
        16..=0xffff => with_marker(out, marker::MAP16, &(len as u16).to_be_bytes()),
        _ => with_marker(out, marker::MAP32, &(len as u32).to_be_bytes()),
    }
}

#[inline]
fn with_marker<const N: usize>(out: &mut Vec<u8>, marker: u8, bytes: &[u8; N]) {
    // One check of the capacity for both writes.
    out.reserve(1 + N);
    out.push(marker);
    out.extend_from_slice(bytes);
}
