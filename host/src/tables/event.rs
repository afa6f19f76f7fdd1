//! The events and effects of a table's state machine.
//!
//! What follows from an event is `table`'s business; how an effect is carried out is
//! `cdc::effects`' business.

use walgate_wire::{Lsn, Token};

use super::fingerprint::SeenFingerprint;
use crate::{
    postgres::catalog::DdlFingerprint, postgres::replication::stream::RelationChange,
    wal_budget::PressureLevel,
};

/// What kind of obstacle suspends a table. It decides what lifts the suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspendCause {
    /// The table or its guest has to be fixed: an altered table or a new guest lifts it.
    Failed,
    /// The source no longer has the table, or does not publish it. Its return lifts it.
    Absent,
    /// Another session holds an exclusive lock, and the guest needs values that only the table
    /// has. The end of the lock lifts it.
    Locked,
    /// The slot retains too much WAL. Less retained WAL lifts it.
    Shed,
}

impl SuspendCause {
    /// What lifts the suspension, for those who read the reason.
    pub fn way_back(self) -> &'static str {
        match self {
            SuspendCause::Failed => {
                "Once this is mended (by altering the table, by a new guest in its folder, or otherwise and a restart of the gateway)"
            }
            SuspendCause::Absent => "Once it is there again and published",
            SuspendCause::Locked => "Once nobody locks it any more",
            SuspendCause::Shed => "Once the slot holds back less",
        }
    }

    /// Whether the suspension ends without an operator.
    pub fn is_transient(self) -> bool {
        matches!(self, SuspendCause::Locked | SuspendCause::Shed)
    }
}

/// Why a table is suspended, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspendReason {
    /// For operators: log and status page.
    pub internal: String,
    /// For consumers: without what a guest reports about rows.
    pub public: String,
}

impl From<&str> for SuspendReason {
    fn from(reason: &str) -> Self {
        SuspendReason { internal: reason.to_owned(), public: reason.to_owned() }
    }
}

/// That a table is suspended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    pub cause: SuspendCause,
    pub reason: SuspendReason,
}

/// What happened to one table, or to all of them.
#[derive(Clone, Debug)]
pub enum TableEvent<G> {
    /// Folders were read for the first time; no session has begun.
    GatewayStarted,
    /// A session begins: announcements of the one before are void.
    SessionStarted,
    /// The stored schema and the catalog agree on the relation of the table.
    RelationConfirmed { token: Token, relid: u32 },
    /// A Relation message: rows that follow have this shape.
    RelationAnnounced { token: Token, change: RelationChange },
    /// The folder of guests offers a guest, none, or the reason why rows may not be published.
    GuestOffered { token: Token, gate: G },
    /// A transaction ended, and offers may have changed.
    TransactionEnded,
    /// The answer to [`TableEffect::CheckGate`].
    GateChecked { token: Token, gate: G, fits: bool },
    /// The catalog has the table, and the publication carries it.
    TablePresent { token: Token, relid: u32 },
    /// The catalog lacks the table, or the publication does.
    TableAbsent { token: Token, reason: String },
    /// The answer to [`TableEffect::CheckLock`].
    LockChecked { token: Token, relid: u32, is_locked: bool },
    /// The answer to [`TableEffect::ReadStoredRelation`].
    StoredRelationRead { token: Token, relid: u32, stored: Option<u32> },
    /// The catalog was looked at; `lsn` is a position after the look.
    FingerprintRead { token: Token, relid: u32, fingerprint: DdlFingerprint, lsn: Lsn },
    /// The answer to [`TableEffect::Reseed`]: it is stored.
    ReseedStored { token: Token, seen: SeenFingerprint },
    /// Consumers know that everything before `lsn` was published.
    ProgressPublished { lsn: Lsn },
    /// The WAL that the slot retains presses more, or less.
    PressureChanged(PressureLevel),
    /// A batch, or opening an outlet through `gate`, failed because of this table.
    TableFailed { token: Token, suspension: Suspension, gate: Option<G> },
    /// A snapshot failed in the guest of `gate`.
    SnapshotFailed { token: Token, gate: G, reason: SuspendReason },
    /// The schema is stored, and an outlet for rows of this announcement is open.
    OutletOpened { token: Token, change: RelationChange, gate: G, types_reread: bool },
    /// The schema is stored as the catalog shows the table; no relation is announced yet.
    SchemaRegistered { token: Token, gate: G, types_reread: bool },
    /// The answer to [`TableEffect::Suspend`]: consumers can read it.
    SuspensionStored { token: Token, suspension: Suspension, gate: Option<G> },
}

impl<G> TableEvent<G> {
    /// The table that the event is about; `None` if it is about all.
    pub fn token(&self) -> Option<&Token> {
        match self {
            TableEvent::GatewayStarted
            | TableEvent::SessionStarted
            | TableEvent::TransactionEnded
            | TableEvent::ProgressPublished { .. }
            | TableEvent::PressureChanged(_) => None,
            TableEvent::RelationConfirmed { token, .. }
            | TableEvent::RelationAnnounced { token, .. }
            | TableEvent::GuestOffered { token, .. }
            | TableEvent::GateChecked { token, .. }
            | TableEvent::TablePresent { token, .. }
            | TableEvent::TableAbsent { token, .. }
            | TableEvent::LockChecked { token, .. }
            | TableEvent::StoredRelationRead { token, .. }
            | TableEvent::FingerprintRead { token, .. }
            | TableEvent::ReseedStored { token, .. }
            | TableEvent::TableFailed { token, .. }
            | TableEvent::SnapshotFailed { token, .. }
            | TableEvent::OutletOpened { token, .. }
            | TableEvent::SchemaRegistered { token, .. }
            | TableEvent::SuspensionStored { token, .. } => Some(token),
        }
    }
}

/// What has to be done about an event.
#[derive(Clone, Debug)]
pub enum TableEffect<G> {
    /// Drop the outlet of the relation and skip its rows.
    CloseOutlet { relid: u32 },
    /// Register the announced shape behind `gate` and open an outlet. `change.lsn` is where in the
    /// stream the shape begins.
    OpenOutlet { token: Token, change: RelationChange, gate: G },
    /// The same from a position after all that was published, for every announcement; without
    /// any, register the table as the catalog shows it.
    ReopenOutlets { token: Token, changes: Vec<RelationChange>, gate: G, types_reread: bool },
    /// Store the suspension for consumers to read.
    Suspend { token: Token, suspension: Suspension, gate: Option<G> },
    /// Store that copies older than `lsn` have to be loaded again.
    Reseed { token: Token, lsn: Lsn, reason: &'static str, seen: SeenFingerprint },
    /// Try whether a new guest fits the announced shapes.
    CheckGate { token: Token, changes: Vec<RelationChange>, gate: G },
    /// Ask whether another session still holds an exclusive lock.
    CheckLock { token: Token, relid: u32 },
    /// Read which relation the stored schema belongs to.
    ReadStoredRelation { token: Token, relid: u32 },
    /// Types are read from the catalog again when they are needed next.
    ForgetTypes,
    /// Compare offers once more when the transaction has ended.
    RecheckOffers,
}
