//! The consumer against real servers and files; a stand-in publishes what a gateway would.

mod flow;
mod publisher;
mod rows;
mod sinks;
mod speed;
