//! End to end: real Postgres, real NATS, the real programs. One file a subject.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod any_filter;
mod changes;
mod dependents;
mod dictionaries;
mod environment;
mod exactly_once;
mod failing_rows;
mod far_nats;
mod guest_files;
mod guest_limits;
mod guest_shapes;
mod guest_tools;
mod guests;
mod misbehaviour;
mod names;
mod nats_permissions;
mod nats_security;
mod payloads;
mod postgres_security;
mod preflight;
mod private_nats;
mod publications;
mod python;
mod reload;
mod requests;
mod schema_changes;
mod secrecy;
mod snapshots;
mod streams;
mod stuck;
mod tampering;
mod tools;
mod type_matrix;
mod vectors;
mod wal_budget;
