//! What both sides of Walgate must agree on: names, headers, positions, bodies, packing and compression.
//!
//! Nothing here does I/O, knows a runtime, NATS or Postgres. `docs/PROTOCOL.md` is this crate in prose; the
//! vectors under `tests/vectors/` are this crate in bytes.

mod change;
mod chunk;
mod compress;
mod control;
mod headers;
mod names;
pub mod pack;
mod parts;
mod position;
mod schema;
mod value;

pub use change::{Change, ChangeWriter, Op, decode_changes};
pub use chunk::{
    Chunk, ChunkDigest, ChunkWriter, Column as ChunkColumn, decode_chunk, hex, push_hex,
};
pub use compress::{
    Compressor, Decompressor, Dictionary, DictionaryError, FrameError, MAX_DICTIONARY_BYTES, train,
};
pub use control::{
    ControlError, DeadLetter, DictionaryRef, EpochRecord, InitError, InitMeta, InitStart, Progress,
    XidWindow, from_msgpack, to_msgpack,
};
pub use headers::*;
pub use names::{InvalidName, PROGRESS_SUBJECT, TableName, Token, buckets, subjects};
pub use parts::{Part, split};
pub use position::{Epoch, Lsn, ParsePositionError, Position, StreamPosition};
pub use schema::{Column, Guest, Identity, Schema, TableState};
pub use value::{Caps, DecodeError, Reader, Value};
