//! Everything that is said to NATS: streams and buckets, the chain of changes, acknowledged publishing.
//!
//! The only place of the gateway that knows `async_nats`. What is inside a body is not known here.

pub mod ack_ledger;
pub mod chain;
pub mod kv;
pub mod permissions;
pub mod publisher;
pub mod revisions;
mod stream_config;
pub mod streams;
pub mod tail;
