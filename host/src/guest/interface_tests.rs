//! Tests of interface.
