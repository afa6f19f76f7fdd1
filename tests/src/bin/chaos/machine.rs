//! The machine under the gateway runs out of something.
