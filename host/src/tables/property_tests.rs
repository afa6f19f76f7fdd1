//! No sequence of events publishes rows under a shape or guest that is not the table's. None leaves
//! a suspended table without a reason and a way back.
//!
//! A small interpreter carries out effects against a model of outlets. Any effect may succeed, fail
//! because of the table, or end the session.

use std::collections::HashMap;

use proptest::prelude::*;
use walgate_wire::Lsn;

use super::{
    tests::{Effect, Event, TestGate, change, suspension, token},
    *,
};
use crate::{postgres::catalog::DdlFingerprint, wal_budget::PressureLevel};

#[derive(Clone, Debug)]
enum Step {
    Announce { relid: u32, shape: u8 },
    Offer(TestGate),
    TransactionEnded,
    LookPresent { relid: u32 },
    LookAbsent,
    Pressure(PressureLevel),
    BatchFails(SuspendCause),
    SnapshotFails(TestGate),
    Fingerprint { relid: u32, file: u8, lsn: u64 },
    Progress(u64),
    NewSession,
}

/// What becomes of an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Done,
    TableFails,
    SessionEnds,
}

fn gates() -> impl Strategy<Value = TestGate> {
    prop_oneof![
        Just(TestGate::Open),
        (0..3u8).prop_map(TestGate::Guest),
        Just(TestGate::Shut("guest missing".into())),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let pressures = vec![PressureLevel::Calm, PressureLevel::Throttled, PressureLevel::Shedding];
    let causes = vec![SuspendCause::Failed, SuspendCause::Locked];
    prop_oneof![
        4 => (1..3u32, 0..3u8).prop_map(|(relid, shape)| Step::Announce { relid, shape }),
        2 => gates().prop_map(Step::Offer),
        3 => Just(Step::TransactionEnded),
        2 => (1..3u32).prop_map(|relid| Step::LookPresent { relid }),
        1 => Just(Step::LookAbsent),
        2 => prop::sample::select(pressures).prop_map(Step::Pressure),
        1 => prop::sample::select(causes).prop_map(Step::BatchFails),
        1 => gates().prop_map(Step::SnapshotFails),
        1 => (1..3u32, 0..3u8, 0..9u64)
            .prop_map(|(relid, file, lsn)| Step::Fingerprint { relid, file, lsn }),
        1 => (0..9u64).prop_map(Step::Progress),
        1 => Just(Step::NewSession),
    ]
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        8 => Just(Outcome::Done),
        1 => Just(Outcome::TableFails),
        1 => Just(Outcome::SessionEnds),
    ]
}

/// The machine, and the world that its effects change.
struct World {
    tables: Tables<TestGate>,
    /// By relation: what its rows are published through, and read by.
    outlets: HashMap<u32, (TestGate, RelationChange)>,
    announced: HashMap<u32, RelationChange>,
    outcomes: Vec<Outcome>,
}

impl World {
    fn event(step: Step) -> Event {
        let token = token();
        match step {
            Step::Announce { relid, shape } => {
                TableEvent::RelationAnnounced { token, change: change(relid, shape) }
            }
            Step::Offer(gate) => TableEvent::GuestOffered { token, gate },
            Step::TransactionEnded => TableEvent::TransactionEnded,
            Step::LookPresent { relid } => TableEvent::TablePresent { token, relid },
            Step::LookAbsent => TableEvent::TableAbsent { token, reason: "dropped".into() },
            Step::Pressure(pressure) => TableEvent::PressureChanged(pressure),
            Step::BatchFails(cause) => {
                TableEvent::TableFailed { token, suspension: suspension(cause), gate: None }
            }
            Step::SnapshotFails(gate) => {
                TableEvent::SnapshotFailed { token, gate, reason: "trap".into() }
            }
            Step::Fingerprint { relid, file, lsn } => {
                let fingerprint = DdlFingerprint::for_composite(&file.to_string());
                TableEvent::FingerprintRead { token, relid, fingerprint, lsn: Lsn(lsn) }
            }
            Step::Progress(lsn) => TableEvent::ProgressPublished { lsn: Lsn(lsn) },
            Step::NewSession => TableEvent::SessionStarted,
        }
    }

    /// Whether the session survived it.
    fn handle(&mut self, event: Event) -> bool {
        if let TableEvent::RelationAnnounced { change, .. } = &event {
            self.announced.insert(change.relation.relid, change.clone());
        }
        if let TableEvent::SessionStarted = event {
            self.outlets.clear();
            self.announced.clear();
        }
        let mut effects = std::collections::VecDeque::from(self.tables.on(event));
        let mut left = 1000;
        while let Some(effect) = effects.pop_front() {
            left -= 1;
            assert!(left > 0, "effects without end: {effect:?}");
            let outcome = self.outcomes.pop().unwrap_or(Outcome::Done);
            let Some(events) = self.perform(effect, outcome) else {
                self.handle(TableEvent::SessionStarted);
                return false;
            };
            for event in events {
                effects.extend(self.tables.on(event));
            }
        }
        true
    }

    fn perform(&mut self, effect: Effect, outcome: Outcome) -> Option<Vec<Event>> {
        let token = token();
        let failed = |gate: &TestGate| TableEvent::TableFailed {
            token: token.clone(),
            suspension: suspension(SuspendCause::Failed),
            gate: Some(gate.clone()),
        };
        Some(match effect {
            TableEffect::CloseOutlet { relid } => {
                self.outlets.remove(&relid);
                vec![]
            }
            TableEffect::ForgetTypes | TableEffect::RecheckOffers => vec![],
            _ if outcome == Outcome::SessionEnds => return None,
            TableEffect::OpenOutlet { change, gate, .. } => {
                vec![self.open(change, gate, outcome, false)]
            }
            TableEffect::ReopenOutlets { changes, gate, .. }
                if changes.is_empty() && (outcome != Outcome::Done || is_shut(&gate)) =>
            {
                vec![failed(&gate)]
            }
            TableEffect::ReopenOutlets { changes, gate, types_reread, .. }
                if changes.is_empty() =>
            {
                vec![TableEvent::SchemaRegistered { token, gate, types_reread }]
            }
            TableEffect::ReopenOutlets { changes, gate, types_reread, .. } => {
                let open = |change| self.open(change, gate.clone(), outcome, types_reread);
                changes.into_iter().map(open).collect()
            }
            TableEffect::Suspend { suspension, gate, .. } => {
                vec![TableEvent::SuspensionStored { token, suspension, gate }]
            }
            TableEffect::Reseed { seen, .. } => vec![TableEvent::ReseedStored { token, seen }],
            TableEffect::CheckGate { gate, .. } => {
                vec![TableEvent::GateChecked { token, gate, fits: outcome == Outcome::Done }]
            }
            TableEffect::CheckLock { relid, .. } => {
                let is_locked = outcome != Outcome::Done;
                vec![TableEvent::LockChecked { token, relid, is_locked }]
            }
            TableEffect::ReadStoredRelation { relid, .. } => {
                let stored = Some(if outcome == Outcome::Done { relid } else { relid + 1 });
                vec![TableEvent::StoredRelationRead { token, relid, stored }]
            }
        })
    }

    fn open(
        &mut self,
        change: RelationChange,
        gate: TestGate,
        outcome: Outcome,
        types_reread: bool,
    ) -> Event {
        let token = token();
        if outcome != Outcome::Done || is_shut(&gate) {
            let suspension = suspension(SuspendCause::Failed);
            return TableEvent::TableFailed { token, suspension, gate: Some(gate) };
        }
        self.outlets.insert(change.relation.relid, (gate.clone(), change.clone()));
        TableEvent::OutletOpened { token, change, gate, types_reread }
    }

    fn check(&self) {
        for (relid, (gate, change)) in &self.outlets {
            if !self.tables.is_open(&token(), *relid) {
                continue;
            }
            assert!(self.tables.suspension(&token()).is_none());
            assert_eq!(*gate, self.tables.gate(&token()), "rows pass another guest");
            assert!(gate.shut_reason().is_none(), "rows pass a shut gate");
            let announced = &self.announced[relid].relation;
            assert_eq!(change.relation, *announced, "rows are read by another shape");
        }
        for relid in self.announced.keys() {
            let is_open = self.tables.is_open(&token(), *relid);
            assert!(!is_open || self.outlets.contains_key(relid), "open without an outlet");
        }
        if let Some(suspension) = self.tables.suspension(&token()) {
            assert!(!suspension.reason.public.is_empty() && !suspension.reason.internal.is_empty());
            assert!(!suspension.cause.way_back().is_empty());
            self.check_way_back(suspension.cause);
        }
    }

    /// What the reason promises brings the table back.
    fn check_way_back(&self, cause: SuspendCause) {
        let mut tables = self.tables.clone();
        let token = token();
        let effects = match cause {
            SuspendCause::Failed => {
                let gate = TestGate::Guest(200);
                tables.on(TableEvent::GuestOffered { token, gate });
                tables.on(TableEvent::TransactionEnded)
            }
            SuspendCause::Absent => tables.on(TableEvent::TablePresent { token, relid: 1 }),
            SuspendCause::Locked => {
                let checks = tables.on(TableEvent::TablePresent { token: token.clone(), relid: 1 });
                assert!(matches!(checks[..], [TableEffect::CheckLock { .. }]));
                tables.on(TableEvent::LockChecked { token, relid: 1, is_locked: false })
            }
            SuspendCause::Shed => tables.on(TableEvent::PressureChanged(PressureLevel::Calm)),
        };
        let reopens = |effect: &Effect| matches!(effect, TableEffect::ReopenOutlets { .. });
        assert!(effects.iter().any(reopens), "no way back from {cause:?}");
    }
}

fn is_shut(gate: &TestGate) -> bool {
    gate.shut_reason().is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_is_published_that_is_not_the_tables(
        steps in prop::collection::vec(steps(), 1..60),
        outcomes in prop::collection::vec(outcomes(), 0..120),
    ) {
        let tables = Tables::new([(token(), true)]);
        let (outlets, announced) = Default::default();
        let mut world = World { tables, outlets, announced, outcomes };
        for step in steps {
            let before = world.tables.suspension(&token()).map(|suspension| suspension.cause);
            let survived = world.handle(World::event(step.clone()));
            world.check();
            let after = world.tables.suspension(&token()).map(|suspension| suspension.cause);
            if let Step::LookAbsent = step {
                prop_assert!(!survived || after.is_some(), "an absent table is published");
            }
            if before == Some(SuspendCause::Absent) && after.is_none() {
                prop_assert!(matches!(step, Step::LookPresent { .. }), "{step:?} brought it back");
            }
        }
    }
}
