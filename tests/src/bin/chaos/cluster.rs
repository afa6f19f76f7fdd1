//! A cluster of three nodes of NATS, each stream on all of them.
