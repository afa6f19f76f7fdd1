//! What an operator sees: counters, lag, the HTTP pages.

pub mod http;
pub mod lag;
pub mod status;
