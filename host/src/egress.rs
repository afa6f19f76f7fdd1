//! From row batches to bodies: missing values, guest, dead letters, packing, compression.
//!
//! `pipeline` is the only asynchronous part. Where batches come from is not known here.

pub mod compress;
pub mod dead_letters;
pub mod dictionary_stats;
pub mod live_dictionaries;
pub mod outlet;
pub mod pipeline;
