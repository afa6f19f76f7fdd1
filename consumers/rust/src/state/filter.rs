//! Which changes of a message are new to a table: those behind its position that its snapshot did not see.

use serde::{Deserialize, Serialize};
use walgate_wire::{Change, Position, XidWindow};

/// Transaction ids return after 2³¹ of them, so a window must not be asked for ever. Six hours would take
/// 99,000 writing transactions a second, and are far more than two clocks differ.
const WINDOW_LASTS_US: i64 = 6 * 3600 * 1_000_000;

/// Which transactions a snapshot saw although they committed at or above its watermark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotWindow {
    pub xids: XidWindow,
    /// Transactions that committed later were not seen; microseconds since 1970.
    pub until: i64,
}

impl SnapshotWindow {
    /// `finished_at`: when the snapshot was complete, microseconds since 1970.
    pub fn new(xids: XidWindow, finished_at: i64) -> Self {
        SnapshotWindow { xids, until: finished_at.saturating_add(WINDOW_LASTS_US) }
    }

    fn saw(&self, xid: u32, at: i64) -> bool {
        at <= self.until && super::is_open(&self.xids) && self.xids.sees(xid)
    }
}

/// Keeps what is new.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub after: Position,
    pub window: Option<SnapshotWindow>,
}

impl Filter {
    pub fn keeps(&self, change: &Change<'_>) -> bool {
        change.position > self.after
            && !self.window.as_ref().is_some_and(|window| window.saw(change.xid, change.at))
    }
}
