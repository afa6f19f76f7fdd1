//! The ledger of messages in flight: which LSN may be confirmed to Postgres.
//!
//! Pure. It records messages sent and acknowledged, in any order of acknowledgement. It returns the
//! highest LSN below which everything is stored. It knows neither NATS nor Postgres nor time.

use std::collections::VecDeque;

use walgate_wire::Lsn;

/// An LSN up to which every change is acknowledged by the stream. Only the ledger derives one from
/// traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(pub Lsn);

/// The room in flight that an acknowledgement released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    pub messages: usize,
    pub bytes: usize,
    /// The new confirmable LSN, if it moved.
    pub durable: Option<Durable>,
}

/// An acknowledgement for a message that was never sent, or a second one: the server cannot be
/// trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream acknowledged sequence {0}, which is not in flight")]
pub struct UnexpectedAck(pub u64);

/// Messages in flight, in stream order without gaps.
#[derive(Debug)]
pub struct Ledger {
    /// Stream sequence of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
    durable: Durable,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    confirms: Option<Lsn>,
    acknowledged: bool,
}

impl Ledger {
    /// `last_sequence`: the stream's last sequence before the first message.
    pub fn new(last_sequence: u64) -> Self {
        Ledger { first: last_sequence + 1, entries: VecDeque::new(), durable: Durable::default() }
    }

    /// Records the next message; returns the stream sequence that it must get. `confirms`: the LSN
    /// that may be confirmed once this message and all before it are stored.
    pub fn record_sent(&mut self, bytes: usize, confirms: Option<Lsn>) -> u64 {
        self.entries.push_back(Entry { bytes, confirms, acknowledged: false });
        self.first + self.entries.len() as u64 - 1
    }

    /// Records that the stream stored the message with this sequence.
    pub fn record_ack(&mut self, sequence: u64) -> Result<Released, UnexpectedAck> {
        let entry = sequence
            .checked_sub(self.first)
            .and_then(|index| self.entries.get_mut(usize::try_from(index).ok()?))
            .filter(|entry| !entry.acknowledged)
            .ok_or(UnexpectedAck(sequence))?;
        entry.acknowledged = true;
        let mut released = Released::default();
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.acknowledged) {
            self.first += 1;
            released.messages += 1;
            released.bytes += entry.bytes;
            if let Some(lsn) = entry.confirms.filter(|&lsn| lsn > self.durable.0) {
                self.durable = Durable(lsn);
                released.durable = Some(self.durable);
            }
        }
        Ok(released)
    }

    pub fn in_flight(&self) -> usize {
        self.entries.len()
    }

    /// The last sequence below which everything is acknowledged.
    pub fn acknowledged_sequence(&self) -> u64 {
        self.first - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_confirmed_past_a_gap() {
        let mut ledger = Ledger::new(10);
        assert_eq!(ledger.record_sent(5, Some(Lsn(100))), 11);
        assert_eq!(ledger.record_sent(6, Some(Lsn(200))), 12);
        assert_eq!(ledger.record_ack(12), Ok(Released::default()));
        let both = Released { messages: 2, bytes: 11, durable: Some(Durable(Lsn(200))) };
        assert_eq!(ledger.record_ack(11), Ok(both));
        assert_eq!(ledger.record_ack(11), Err(UnexpectedAck(11)));
        assert_eq!(ledger.record_ack(13), Err(UnexpectedAck(13)));
        assert_eq!(ledger.acknowledged_sequence(), 12);
    }

    proptest! {
        #[test]
        fn any_order_of_acks_confirms_exactly_the_prefix(
            confirms in prop::collection::vec(any::<Option<u32>>(), 1..60),
            seed in any::<u64>(),
        ) {
            let mut ledger = Ledger::new(0);
            let mut sequences: Vec<u64> =
                confirms.iter().map(|c| ledger.record_sent(1, c.map(|l| Lsn(l.into())))).collect();
            let mut state = seed | 1;
            for i in (1..sequences.len()).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                sequences.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut acknowledged = vec![false; confirms.len()];
            let mut durable = 0;
            for sequence in sequences {
                acknowledged[sequence as usize - 1] = true;
                let released = ledger.record_ack(sequence).unwrap();
                let prefix = acknowledged.iter().take_while(|a| **a).count();
                let expected = confirms[..prefix].iter().flatten().copied().max().unwrap_or(0);
                durable = released.durable.map_or(durable, |d| d.0.0);
                prop_assert_eq!(durable, u64::from(expected));
                prop_assert_eq!(ledger.acknowledged_sequence(), prefix as u64);
            }
            prop_assert_eq!(ledger.in_flight(), 0);
        }
    }
}
