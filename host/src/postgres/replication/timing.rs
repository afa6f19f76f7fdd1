//! The timeouts of a replication connection. How they are enforced is not known here.

/// Timeouts of the replication connection.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Sent to the server as the connection's `wal_sender_timeout`, milliseconds.
    pub wal_sender_timeout_ms: u32,
    /// Silence after which the gateway closes the connection, milliseconds. It must cover several
    /// status updates that ask for a reply. It must also exceed `wal_sender_timeout_ms`: while
    /// Postgres skips a huge transaction of other tables, it reads status updates only every half
    /// of that.
    pub silence_ms_max: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { wal_sender_timeout_ms: 30_000, silence_ms_max: 45_000 }
    }
}
