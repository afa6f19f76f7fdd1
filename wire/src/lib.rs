//! The wire protocol of Walgate: names, headers, positions, bodies, packing and compression.
//!
//! Gateway and consumers both use this crate. It does no I/O and knows no runtime, no NATS and no
//! Postgres. `docs/PROTOCOL.md` is this crate in prose, `tests/vectors/` is this crate in bytes.
//!
//! A body of changes is written, compressed, and read again:
//!
//! ```
//! use walgate_wire::{Caps, ChangeWriter, Compressor, Decompressor, Lsn, decode_changes, pack};
//!
//! let mut body = ChangeWriter::default();
//! body.transaction(Lsn(0x16_B374_D848), 7, 1_700_000_000_000_000);
//! body.insert(1);
//! pack::array(&mut body.out, 2);
//! pack::int(&mut body.out, 10);
//! pack::str(&mut body.out, "Ada");
//! let mut frame = Vec::new();
//! Compressor::new(3, None)?.compress(&body.out, &mut frame)?;
//!
//! let caps = Caps::default();
//! let body = Decompressor::new(None)?.decompress(&frame, &caps)?;
//! let changes = decode_changes(&body, 2, &caps)?;
//! assert_eq!(changes[0].position.to_string(), "16/B374D848#1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod change;
mod chunk;
mod compress;
mod control;
mod headers;
pub mod hex;
mod marker;
mod names;
pub mod pack;
mod parts;
mod position;
mod schema;
mod value;

pub use change::{Change, ChangeWriter, Op, decode_changes};
pub use chunk::{Chunk, ChunkColumn, ChunkDigest, ChunkWriter, decode_chunk};
pub use compress::{
    Compressor, Decompressor, Dictionary, DictionaryError, FrameError, MAX_DICTIONARY_BYTES,
    train_dictionary,
};
pub use control::{
    ControlError, DeadLetter, DictionaryRef, EpochRecord, InitError, InitMeta, InitStart, Progress,
    XidWindow, from_msgpack, to_msgpack,
};
pub use headers::*;
pub use names::{InvalidName, PROGRESS_SUBJECT, TableName, Token, buckets, subjects};
pub use parts::{Part, split_into_parts};
pub use position::{Epoch, Lsn, ParsePositionError, Position, StreamPosition};
pub use schema::{Column, Guest, Identity, Schema, TableState};
pub use value::{Caps, DecodeError, Reader, Value};
