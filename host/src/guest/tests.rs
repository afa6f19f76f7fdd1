//! Tests of guests that run.
