//! Change data capture: from the slot to the CDC stream, session by session.
//!
//! What a row looks like inside is not known here.

pub mod ddl_watch;
mod effects;
pub mod epoch;
pub mod open;
pub mod session;
