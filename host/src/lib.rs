//! The Walgate gateway. `ARCHITECTURE.md` says where to find what; `run` wires it together.

pub mod assets;
pub mod batch;
pub mod broker;
pub mod changes;
pub mod cli;
pub mod commands;
pub mod config;
pub mod epoch;
pub mod gateway;
pub mod guest;
pub mod http;
pub mod kv;
pub mod ledger;
pub mod pack;
pub mod policy;
pub mod publish;
pub mod requests;
pub mod run;
pub mod schemas;
pub mod session;
pub mod snapshots;
pub mod source;
pub mod status;
pub mod transform;
pub mod watch;
