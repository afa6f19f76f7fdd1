//! The replication connection: a thin client, pgoutput, and changes in commit order as batches of
//! rows.
//!
//! Reading and feedback are separate halves. Nothing here publishes, and nothing here confirms.

mod auth;
mod batcher;
pub mod client;
mod frames;
mod messages;
pub mod pgoutput;
mod socket;
pub mod stream;
mod timing;
