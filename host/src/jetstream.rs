//! NATS JetStream: streams and buckets, the chain of changes, acknowledged publishing, requests.
//!
//! The only place of the gateway that knows `async_nats`: no public item exposes one of its types.
//! The contents of a body are not known here.

pub mod ack_ledger;
pub mod chain;
pub mod kv;
pub mod permissions;
pub mod publisher;
pub mod requests;
pub mod revisions;
mod stream_config;
pub mod streams;
pub mod tail;
