//! Snapshots on request: who may ask, one snapshot of one table, the connections that copy it.

mod job;
pub mod live_rows;
pub mod requests;
mod worker;
