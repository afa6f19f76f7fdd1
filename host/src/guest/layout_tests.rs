//! Tests of layout.
