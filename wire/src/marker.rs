//! First bytes of MessagePack values, with the names of the specification.
//!
//! A value up to `*_MAX` carries a number or a length in its first byte.
//! See <https://github.com/msgpack/msgpack/blob/master/spec.md#formats>.

pub const FIXINT_MAX: u8 = 0x7f;
pub const FIXMAP: u8 = 0x80;
pub const FIXMAP_MAX: u8 = 0x8f;
pub const FIXARRAY: u8 = 0x90;
pub const FIXARRAY_MAX: u8 = 0x9f;
pub const FIXSTR: u8 = 0xa0;
pub const FIXSTR_MAX: u8 = 0xbf;
pub const NIL: u8 = 0xc0;
pub const FALSE: u8 = 0xc2;
pub const TRUE: u8 = 0xc3;
pub const BIN8: u8 = 0xc4;
pub const BIN16: u8 = 0xc5;
pub const BIN32: u8 = 0xc6;
pub const FLOAT32: u8 = 0xca;
pub const FLOAT64: u8 = 0xcb;
pub const UINT8: u8 = 0xcc;
pub const UINT16: u8 = 0xcd;
pub const UINT32: u8 = 0xce;
pub const UINT64: u8 = 0xcf;
pub const INT8: u8 = 0xd0;
pub const INT16: u8 = 0xd1;
pub const INT32: u8 = 0xd2;
pub const INT64: u8 = 0xd3;
pub const STR8: u8 = 0xd9;
pub const STR16: u8 = 0xda;
pub const STR32: u8 = 0xdb;
pub const ARRAY16: u8 = 0xdc;
pub const ARRAY32: u8 = 0xdd;
pub const MAP16: u8 = 0xde;
pub const MAP32: u8 = 0xdf;
pub const NEGATIVE_FIXINT: u8 = 0xe0;
