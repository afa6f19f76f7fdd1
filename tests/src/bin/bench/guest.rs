//! The cost of a guest: how much it slows changes, how it compares with native code, and how long a
//! swap interrupts the stream.
//!
//! The guests are those of the demo, as `cargo xtask` builds them (`WALGATE_GUEST_FILES`, else
//! `target/guests`).

pub mod native;
pub mod ratio;
pub mod swap;

/// The name of the measured guest.
const GUEST: &str = "users";
/// The file that the gateway reads for the table's guest.
const FILE: &str = "users.wasm";
