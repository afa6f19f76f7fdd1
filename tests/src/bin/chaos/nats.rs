//! One NATS server: away, slow, full, forgetful.
