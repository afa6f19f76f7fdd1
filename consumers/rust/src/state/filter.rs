//! Which changes of a message are new to a table: those after its position that its snapshot does
//! not contain.

use serde::{Deserialize, Serialize};
use walgate_wire::{Change, Position, XidWindow};

/// How long a snapshot's window is consulted. Transaction ids wrap around after 2³¹, which takes
/// six hours at 99,000 writing transactions a second. Clock differences are far smaller.
const WINDOW_LIFETIME_US: i64 = 6 * 3600 * 1_000_000;

/// The transactions that a snapshot contains although they committed at or above its watermark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotWindow {
    /// The transactions that were visible to the snapshot.
    pub xids: XidWindow,
    /// Transactions that committed after this time are not in the snapshot; microseconds since
    /// 1970.
    pub until: i64,
}

impl SnapshotWindow {
    /// `finished_at`: when the snapshot was completed, in microseconds since 1970.
    pub fn new(xids: XidWindow, finished_at: i64) -> Self {
        SnapshotWindow { xids, until: finished_at.saturating_add(WINDOW_LIFETIME_US) }
    }

    fn has_seen(&self, xid: u32, at: i64) -> bool {
        at <= self.until && super::has_transactions(&self.xids) && self.xids.sees(xid)
    }
}

/// Selects the changes that are new to a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeFilter {
    /// Changes up to this position were applied already.
    pub after: Position,
    /// The window of the table's snapshot.
    pub window: Option<SnapshotWindow>,
}

impl ChangeFilter {
    /// Whether the change is new to the table.
    pub fn keeps(&self, change: &Change<'_>) -> bool {
        change.position > self.after
            && !self.window.as_ref().is_some_and(|window| window.has_seen(change.xid, change.at))
    }
}
