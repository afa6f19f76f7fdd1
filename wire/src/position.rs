//! Positions of changes: the commit record of a transaction, and the place of a change in it.
//!
//! Everything that the gateway publishes uses these types. This module does not know streams or
//! slots, nor how far a gateway or a consumer has read.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A byte position in Postgres' write-ahead log, displayed as Postgres does: `16/B374D848`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = ParsePositionError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePositionError(s.to_owned());
        let (high, low) = s.split_once('/').ok_or_else(bad)?;
        let half = |part| u32::from_str_radix(part, 16).map_err(|_| bad());
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// One lifetime of a slot of a database that feeds a stream. The number is its start in Unix
/// seconds.
///
/// A new epoch begins if slot, database or stream is created again. Positions of different epochs
/// cannot be compared.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The position of one change in the order of commits, displayed as `16/B374D848#3`.
///
/// Ordinal 0 is before the first change: `(x, 0)` means all transactions that committed before x.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// Start of the commit record of the change's transaction.
    pub commit_lsn: Lsn,
    /// Number of the change among all changes of its transaction, from 1.
    ///
    /// The commit has the ordinal after the last change.
    pub ordinal: u32,
}

impl Position {
    /// The change `ordinal` of the transaction whose commit record starts at `commit_lsn`.
    pub fn new(commit_lsn: Lsn, ordinal: u32) -> Self {
        Position { commit_lsn, ordinal }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.commit_lsn, self.ordinal)
    }
}

/// A position and its epoch, the value of the header `Wg-Pos`.
///
/// It is displayed as `<epoch>/<commit_lsn>/<ordinal>`, the first two in hex:
///
/// ```
/// use walgate_wire::{Epoch, Lsn, Position, StreamPosition};
///
/// let at: StreamPosition = "6553f100/16B374D848/3".parse()?;
/// assert_eq!(at.epoch, Epoch(1_700_000_000));
/// assert_eq!(at.position, Position::new(Lsn(0x16_B374_D848), 3));
/// assert_eq!(at.to_string(), "6553f100/16B374D848/3");
/// # Ok::<(), walgate_wire::ParsePositionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamPosition {
    /// The epoch to which the position belongs.
    pub epoch: Epoch,
    /// The position in that epoch.
    pub position: Position,
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { commit_lsn, ordinal } = self.position;
        write!(f, "{}/{:X}/{}", self.epoch, commit_lsn.0, ordinal)
    }
}

impl FromStr for StreamPosition {
    type Err = ParsePositionError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePositionError(s.to_owned());
        let mut parts = s.split('/');
        let mut next = || parts.next().ok_or_else(bad);
        let epoch = u32::from_str_radix(next()?, 16).map_err(|_| bad())?;
        let lsn = u64::from_str_radix(next()?, 16).map_err(|_| bad())?;
        let ordinal = next()?.parse().map_err(|_| bad())?;
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(StreamPosition { epoch: Epoch(epoch), position: Position::new(Lsn(lsn), ordinal) })
    }
}

/// A text that is not an LSN or a position.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a position")]
pub struct ParsePositionError(pub String);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lsn_round_trips(n: u64) {
            prop_assert_eq!(Lsn(n).to_string().parse::<Lsn>().unwrap(), Lsn(n));
        }

        #[test]
        fn stream_position_round_trips(epoch: u32, lsn: u64, ordinal: u32) {
            let p = StreamPosition { epoch: Epoch(epoch), position: Position::new(Lsn(lsn), ordinal) };
            prop_assert_eq!(p.to_string().parse::<StreamPosition>().unwrap(), p);
        }

        #[test]
        fn garbage_is_refused_not_panicked(s: String) {
            let _ = s.parse::<StreamPosition>();
            let _ = s.parse::<Lsn>();
        }
    }
}
