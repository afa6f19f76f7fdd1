//! What a guest costs: how much slower changes get with it, how far it is from native code, and what swapping it
//! interrupts.
//!
//! The guests are those of the demo, as `cargo xtask` builds them (`WALGATE_GUEST_FILES`, else `target/guests`).

pub mod native;
pub mod ratio;
pub mod swap;

/// The name of the guest that is measured.
const GUEST: &str = "users";
/// Where the gateway looks for the guest of the table.
const FILE: &str = "users.wasm";
