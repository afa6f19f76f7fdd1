//! The operator's view: counters, lag, the HTTP pages.

pub mod counts;
pub mod http;
pub mod lag;
pub mod status;
