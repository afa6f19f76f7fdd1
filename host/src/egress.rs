//! The way out of a batch: guest, dead letters, packing, compression.
//!
//! Synchronous but for what only the server or the stream can do. Where batches come from is not known here.

pub mod compress;
pub mod dead_letters;
pub mod dictionary_stats;
pub mod outlet;
