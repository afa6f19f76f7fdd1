//! Wasm programs for the tests of guests.
