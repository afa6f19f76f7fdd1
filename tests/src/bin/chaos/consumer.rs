//! The consumers are killed; the gateway does not know them.
