//! Snapshots on request: requests, one snapshot of one table, the connections that copy it.

mod job;
pub mod live_rows;
pub mod requests;
mod worker;
