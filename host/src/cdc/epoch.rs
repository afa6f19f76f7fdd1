//! Decides whether slot, database and stream are still those of the last session, and where to
//! continue.
//!
//! Pure: facts of both sides in, a decision out. It never guesses in favour of continuing. If the
//! stream may have lost something, a new epoch begins and every copy has to be loaded again.

use walgate_wire::{Epoch, EpochRecord, Lsn, Position};

use crate::jetstream::tail::Tail;

/// What Postgres reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    pub system_id: String,
    pub timeline: u32,
    pub database: String,
    pub slot: String,
    /// The slot was created just now.
    pub created: bool,
    pub confirmed: Lsn,
    /// Earlier timelines of the server's history, and where each of them was left.
    pub left: Vec<(u32, Lsn)>,
    /// End of the server's WAL, read while the slot was held.
    pub wal_end: Lsn,
}

/// How to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Continue after `resume`. `record`: to be stored first, for a standby has taken over.
    Continue { epoch: Epoch, resume: Position, record: Option<EpochRecord> },
    /// Begin a new epoch. `reseed`: why existing copies cannot be trusted; `None` on the first
    /// start.
    Begin { record: EpochRecord, resume: Position, reseed: Option<String> },
}

/// What is known of the epoch so far.
#[derive(Clone, Debug, Default)]
pub struct Known<'a> {
    pub record: Option<&'a EpochRecord>,
    /// The last stream sequence whose acknowledgement this process has seen.
    pub acknowledged: u64,
    /// What its messages name and cannot be fetched any more.
    pub lost: Option<String>,
}

/// Whether the epoch continues, and from where; otherwise the next epoch.
pub fn decide(known: Known<'_>, slot: &SlotFacts, tail: &Tail, now_unix_seconds: u32) -> Decision {
    let record = known.record;
    let reason = match record {
        None if tail.last_sequence == 0 => Some(None),
        None => {
            Some(Some("the record of the current epoch is gone from KV bucket schemas".to_owned()))
        }
        Some(record) => broken(record, slot, tail, known.acknowledged).or(known.lost).map(Some),
    };
    let Some(reseed) = reason else {
        let epoch = record.map(|r| r.epoch).unwrap_or_default();
        let resume = match tail.position {
            Some(last) => last.position,
            // Everything has expired: what was confirmed is all there was.
            None => Position::new(slot.confirmed, 0),
        };
        let record = record.filter(|record| record.timeline != slot.timeline);
        let record = record.map(|r| EpochRecord { timeline: slot.timeline, ..r.clone() });
        return Decision::Continue { epoch, resume, record };
    };
    // Epochs must differ even when two begin within a second.
    let last =
        [record.map(|r| r.epoch), tail.position.map(|p| p.epoch)].into_iter().flatten().max();
    let epoch =
        last.map_or(now_unix_seconds, |last| now_unix_seconds.max(last.0.saturating_add(1)));
    let record = EpochRecord {
        epoch: Epoch(epoch),
        system_id: slot.system_id.clone(),
        timeline: slot.timeline,
        slot: slot.slot.clone(),
        database: slot.database.clone(),
        slot_start: slot.confirmed,
    };
    Decision::Begin { record, resume: Position::new(slot.confirmed, 0), reseed }
}

/// Why the epoch of `record` cannot continue; `None` if it can.
fn broken(
    record: &EpochRecord,
    slot: &SlotFacts,
    tail: &Tail,
    acknowledged: u64,
) -> Option<String> {
    if record.system_id != slot.system_id || record.database != slot.database {
        return Some(format!(
            "this is another database: {} of system {} instead of {} of system {}",
            slot.database, slot.system_id, record.database, record.system_id
        ));
    }
    if let Some(reason) = other_history(record, slot, tail) {
        return Some(reason);
    }
    if record.slot != slot.slot || slot.created {
        return Some(format!(
            "replication slot {} is new: changes since slot {} ended may be missing",
            slot.slot, record.slot
        ));
    }
    if tail.last_sequence < acknowledged {
        return Some(format!(
            "the CDC stream ends at {} although {acknowledged} was acknowledged: stored messages were lost",
            tail.last_sequence
        ));
    }
    if tail.has_gap {
        return Some(
            "somebody else wrote to the CDC stream between messages of a gateway".to_owned(),
        );
    }
    if tail.last_sequence == 0 {
        return Some("the CDC stream is new: what was stored before is gone".to_owned());
    }
    if let Some(last) = tail.position
        && last.epoch != record.epoch
    {
        return Some(format!("the CDC stream is of epoch {}, not of {}", last.epoch, record.epoch));
    }
    let stored = tail.progress.as_ref().map(|(_, progress)| progress.end_lsn)?;
    (stored < slot.confirmed).then(|| {
        format!("the slot is confirmed to {}, but the CDC stream ends at {stored}: acknowledged messages were lost", slot.confirmed)
    })
}

/// Why the stream's contents do not precede what the server will send, as far as positions show.
fn other_history(record: &EpochRecord, slot: &SlotFacts, tail: &Tail) -> Option<String> {
    let reached = reached(tail);
    if record.timeline != slot.timeline {
        // A standby that had all of the stream when it was promoted continues it.
        let left = slot.left.iter().find(|(timeline, _)| *timeline == record.timeline);
        return match (left, reached) {
            (Some((_, left)), Some(reached)) if reached <= *left => None,
            (Some((_, left)), Some(reached)) => Some(format!(
                "timeline {} was left at {left} for timeline {}, but the CDC stream goes to {reached}: \
                 a failover to a standby that was behind, or a restore",
                record.timeline, slot.timeline
            )),
            _ => Some(format!(
                "the timeline changed from {} to {}: a failover or a restore",
                record.timeline, slot.timeline
            )),
        };
    }
    let reached = reached.filter(|reached| *reached > slot.wal_end)?;
    Some(format!(
        "the server's WAL ends at {}, before the end of the CDC stream at {reached}: it was restored to an earlier point",
        slot.wal_end
    ))
}

/// What the stream holds lies before this.
fn reached(tail: &Tail) -> Option<Lsn> {
    let last = tail.position?.position;
    let stated = tail.progress.as_ref().map_or(Lsn(0), |(_, progress)| progress.end_lsn);
    Some(stated.max(Lsn(last.commit_lsn.0 + u64::from(last.ordinal > 0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_wire::{Progress, StreamPosition};

    fn slot() -> SlotFacts {
        SlotFacts {
            system_id: "7".into(),
            timeline: 1,
            database: "shop".into(),
            slot: "walgate".into(),
            created: false,
            confirmed: Lsn(100),
            left: vec![],
            wal_end: Lsn(130),
        }
    }

    fn record() -> EpochRecord {
        EpochRecord {
            epoch: Epoch(5),
            system_id: "7".into(),
            timeline: 1,
            slot: "walgate".into(),
            database: "shop".into(),
            slot_start: Lsn(1),
        }
    }

    fn tail(end_lsn: u64) -> Tail {
        let position = Position::new(Lsn(90), 4);
        let progress = Progress { lsn: Lsn(90), n: 4, end_lsn: Lsn(end_lsn), at: 0 };
        Tail {
            last_sequence: 9,
            position: Some(StreamPosition { epoch: Epoch(5), position }),
            progress: Some((Epoch(5), progress)),
            has_gap: false,
        }
    }

    fn decided(
        record: Option<&EpochRecord>,
        slot: &SlotFacts,
        tail: &Tail,
        acknowledged: u64,
    ) -> Decision {
        decide(Known { record, acknowledged, lost: None }, slot, tail, 1000)
    }

    fn reseeds(decision: Decision) -> bool {
        matches!(decision, Decision::Begin { reseed: Some(_), record, .. } if record.epoch > Epoch(5))
    }

    #[test]
    fn it_goes_on_where_the_stream_ends() {
        let resume = Position::new(Lsn(90), 4);
        let expected = Decision::Continue { epoch: Epoch(5), resume, record: None };
        assert_eq!(decided(Some(&record()), &slot(), &tail(100), 9), expected);
        assert_eq!(decided(Some(&record()), &slot(), &tail(120), 9), expected);
    }

    #[test]
    fn the_first_start_reseeds_nobody() {
        let empty = Tail::default();
        let decision = decided(None, &SlotFacts { created: true, ..slot() }, &empty, 0);
        assert!(matches!(decision, Decision::Begin { reseed: None, .. }));
    }

    #[test]
    fn an_expired_stream_goes_on_from_the_slot() {
        let expired = Tail { last_sequence: 9, ..Tail::default() };
        let resume = Position::new(Lsn(100), 0);
        let expected = Decision::Continue { epoch: Epoch(5), resume, record: None };
        assert_eq!(decided(Some(&record()), &slot(), &expired, 9), expected);
    }

    #[test]
    fn a_standby_that_has_all_of_the_stream_goes_on_with_it() {
        let standby = |left| SlotFacts { timeline: 3, left, ..slot() };
        let on = |left, tail: &Tail| decided(Some(&record()), &standby(left), tail, 9);
        let record = EpochRecord { timeline: 3, ..record() };
        let resume = Position::new(Lsn(90), 4);
        let expected = Decision::Continue { epoch: Epoch(5), resume, record: Some(record) };
        assert_eq!(on(vec![(1, Lsn(110)), (2, Lsn(115))], &tail(110)), expected);
        // Behind the stream; of another line; and with nothing left to compare.
        assert!(reseeds(on(vec![(1, Lsn(109)), (2, Lsn(115))], &tail(110))));
        assert!(reseeds(on(vec![(2, Lsn(115))], &tail(110))));
        let unstated = Tail { progress: None, ..tail(0) };
        assert!(reseeds(on(vec![(1, Lsn(90))], &unstated)));
        assert!(!reseeds(on(vec![(1, Lsn(91))], &unstated)));
        assert!(reseeds(on(vec![(1, Lsn(110))], &Tail { position: None, ..unstated })));
    }

    #[test]
    fn whatever_may_have_lost_something_reseeds() {
        let (record, good) = (record(), tail(100));
        let by_slot = |slot: SlotFacts| decided(Some(&record), &slot, &good, 9);
        assert!(reseeds(by_slot(SlotFacts { system_id: "8".into(), ..slot() })));
        assert!(reseeds(by_slot(SlotFacts { timeline: 2, ..slot() })));
        assert!(reseeds(by_slot(SlotFacts { created: true, ..slot() })));
        assert!(!reseeds(by_slot(SlotFacts { wal_end: Lsn(100), ..slot() })));
        assert!(reseeds(by_slot(SlotFacts { wal_end: Lsn(99), confirmed: Lsn(80), ..slot() })));
        assert!(reseeds(by_slot(SlotFacts { confirmed: Lsn(101), ..slot() })));
        assert!(reseeds(decided(Some(&record), &slot(), &good, 10)));
        assert!(reseeds(decided(
            Some(&record),
            &slot(),
            &Tail { has_gap: true, ..good.clone() },
            9
        )));
        assert!(reseeds(decided(None, &slot(), &good, 9)));
        let lost =
            Known { record: Some(&record), acknowledged: 9, lost: Some("revision 7".into()) };
        assert!(reseeds(decide(lost, &slot(), &good, 1000)));
        let other = Tail {
            position: Some(StreamPosition { epoch: Epoch(4), position: Position::default() }),
            ..good
        };
        assert!(reseeds(decided(Some(&record), &slot(), &other, 9)));
        let empty = Tail::default();
        let new_stream = Known { record: Some(&record), ..Known::default() };
        assert!(reseeds(decide(new_stream, &slot(), &empty, 3)));
    }
}
