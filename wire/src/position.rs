//! Where a change is: the commit record of its transaction and its place inside it.
//!
//! There is one position type for everything that leaves the gateway. It does not know streams, slots or
//! how far anyone has got.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A byte position in Postgres' write-ahead log. Shown as Postgres shows it: `16/B374D848`.
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

/// One incarnation of "this slot of this database feeding this stream". A new one begins when any of the
/// three is recreated; positions of different epochs are not comparable. Unix seconds of its beginning.
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

/// The place of one change: start of its transaction's commit record, and its 1-based ordinal among all the
/// changes of that transaction. The commit itself takes the ordinal after the last change; ordinal 0 stands
/// before the first change, so `(x, 0)` means "everything that committed before x".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    pub commit_lsn: Lsn,
    pub ordinal: u32,
}

impl Position {
    pub fn new(commit_lsn: Lsn, ordinal: u32) -> Self {
        Position { commit_lsn, ordinal }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.commit_lsn, self.ordinal)
    }
}

/// A position together with its epoch: the value of the header `Wg-Pos`, `<epoch>/<commit_lsn>/<ordinal>`,
/// the first two in hex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamPosition {
    pub epoch: Epoch,
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

/// A text that is not a position.
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
