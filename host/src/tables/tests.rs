//! Every transition of a table, event by event.

use walgate_wire::{Identity, Lsn};

use super::*;
use crate::{
    postgres::{
        catalog::DdlFingerprint,
        replication::pgoutput::{Relation, RelationColumn},
    },
    wal_budget::PressureLevel,
};

/// A gate that needs no module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum TestGate {
    #[default]
    Open,
    Guest(u8),
    Shut(String),
}

impl TableGate for TestGate {
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }

    fn has_guest(&self) -> bool {
        matches!(self, TestGate::Guest(_))
    }

    fn shut_reason(&self) -> Option<&str> {
        match self {
            TestGate::Shut(reason) => Some(reason),
            TestGate::Open | TestGate::Guest(_) => None,
        }
    }
}

pub(super) type Effect = TableEffect<TestGate>;
pub(super) type Event = TableEvent<TestGate>;

pub(super) fn token() -> Token {
    Token::of_alias("t")
}

/// The announcement of a relation with one column, which names the shape.
pub(super) fn change(relid: u32, shape: u8) -> RelationChange {
    let name = format!("c{shape}");
    let column = RelationColumn { name, key: true, oid: 25, typmod: -1 };
    let relation = Relation {
        relid,
        namespace: "public".into(),
        name: "t".into(),
        identity: Identity::Default,
        columns: vec![column],
    };
    RelationChange { relation, lsn: Lsn(100) }
}

pub(super) fn suspension(cause: SuspendCause) -> Suspension {
    Suspension { cause, reason: "broken".into() }
}

/// One table, and short names for its events.
struct Machine(Tables<TestGate>);

impl Machine {
    fn new() -> Machine {
        Machine(Tables::new([(token(), true)]))
    }

    /// A table whose relation 1 is open behind the gate.
    fn streaming(gate: TestGate) -> Machine {
        let mut machine = Machine::new();
        machine.announce(1, 0);
        machine.opened(1, 0, gate.clone());
        machine.offer(gate);
        assert!(machine.is_open(1));
        machine
    }

    fn suspended(cause: SuspendCause) -> Machine {
        let mut machine = Machine::streaming(TestGate::Open);
        machine.store_suspension(cause, None);
        machine
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.0.on(event)
    }

    fn announce(&mut self, relid: u32, shape: u8) -> Vec<Effect> {
        self.on(TableEvent::RelationAnnounced { token: token(), change: change(relid, shape) })
    }

    fn opened(&mut self, relid: u32, shape: u8, gate: TestGate) -> Vec<Effect> {
        let change = change(relid, shape);
        self.on(TableEvent::OutletOpened { token: token(), change, gate, types_reread: false })
    }

    fn offer(&mut self, gate: TestGate) -> Vec<Effect> {
        self.on(TableEvent::GuestOffered { token: token(), gate })
    }

    fn store_suspension(&mut self, cause: SuspendCause, gate: Option<TestGate>) -> Vec<Effect> {
        let suspension = suspension(cause);
        self.on(TableEvent::SuspensionStored { token: token(), suspension, gate })
    }

    fn present(&mut self, relid: u32) -> Vec<Effect> {
        self.on(TableEvent::TablePresent { token: token(), relid })
    }

    fn absent(&mut self) -> Vec<Effect> {
        self.on(TableEvent::TableAbsent { token: token(), reason: "dropped".into() })
    }

    fn fingerprint(&mut self, relid: u32, fingerprint: DdlFingerprint, lsn: u64) -> Vec<Effect> {
        let lsn = Lsn(lsn);
        self.on(TableEvent::FingerprintRead { token: token(), relid, fingerprint, lsn })
    }

    fn is_open(&self, relid: u32) -> bool {
        self.0.is_open(&token(), relid)
    }

    fn cause(&self) -> Option<SuspendCause> {
        self.0.suspension(&token()).map(|suspension| suspension.cause)
    }

    fn gate(&self) -> TestGate {
        self.0.gate(&token())
    }
}

/// The effects by name, with the fields that differ.
fn names(effects: &[Effect]) -> Vec<String> {
    let name = |effect: &Effect| match effect {
        TableEffect::CloseOutlet { relid } => format!("close {relid}"),
        TableEffect::OpenOutlet { change, gate, .. } => {
            format!("open {} {gate:?}", change.relation.relid)
        }
        TableEffect::ReopenOutlets { changes, gate, types_reread, .. } => {
            let relids: Vec<u32> = changes.iter().map(|change| change.relation.relid).collect();
            let types = if *types_reread { " types" } else { "" };
            format!("reopen {relids:?} {gate:?}{types}")
        }
        TableEffect::Suspend { suspension, gate, .. } => {
            format!("suspend {:?} {gate:?}", suspension.cause)
        }
        TableEffect::Reseed { lsn, .. } => format!("reseed {}", lsn.0),
        TableEffect::CheckGate { gate, .. } => format!("check gate {gate:?}"),
        TableEffect::CheckLock { relid, .. } => format!("check lock {relid}"),
        TableEffect::ReadStoredRelation { relid, .. } => format!("read stored {relid}"),
        TableEffect::ForgetTypes => "forget types".into(),
        TableEffect::RecheckOffers => "recheck".into(),
    };
    effects.iter().map(name).collect()
}

#[test]
fn an_announced_relation_is_opened_through_the_live_gate() {
    let mut machine = Machine::new();
    assert_eq!(names(&machine.announce(1, 0)), ["close 1", "open 1 Open"]);
    assert!(!machine.is_open(1), "not before the schema is stored");
    assert!(machine.opened(1, 0, TestGate::Open).is_empty());
    assert!(machine.is_open(1));
    assert_eq!(names(&machine.announce(1, 1)), ["close 1", "open 1 Open"], "another shape");
    assert!(!machine.is_open(1), "rows of the new shape do not pass the old outlet");
}

#[test]
fn an_outlet_for_a_superseded_shape_is_closed_again() {
    let mut machine = Machine::new();
    machine.announce(1, 0);
    machine.announce(1, 1);
    assert_eq!(names(&machine.opened(1, 0, TestGate::Open)), ["close 1"]);
    assert!(!machine.is_open(1));
}

#[test]
fn a_suspended_table_is_skipped_unless_an_alteration_may_have_fixed_it() {
    use SuspendCause::{Absent, Failed, Locked, Shed};
    for cause in [Absent, Locked, Shed] {
        let mut machine = Machine::suspended(cause);
        assert_eq!(names(&machine.announce(1, 1)), ["close 1"], "{cause:?}");
    }
    let mut machine = Machine::suspended(Failed);
    assert_eq!(names(&machine.announce(1, 0)), ["close 1"], "the same shape fails again");
    assert_eq!(names(&machine.announce(1, 1)), ["close 1", "open 1 Open"]);
    assert_eq!(machine.cause(), Some(Failed), "until the schema is stored");
    machine.opened(1, 1, TestGate::Open);
    assert_eq!(machine.cause(), None);
}

#[test]
fn an_offered_guest_becomes_live_between_transactions() {
    let mut machine = Machine::streaming(TestGate::Open);
    assert!(machine.offer(TestGate::Guest(1)).is_empty(), "an offer changes nothing by itself");
    assert_eq!(machine.gate(), TestGate::Open);
    assert_eq!(names(&machine.on(TableEvent::TransactionEnded)), ["reopen [1] Guest(1)"]);
    assert_eq!(machine.gate(), TestGate::Open, "until the schema is stored");
    machine.opened(1, 0, TestGate::Guest(1));
    assert_eq!(machine.gate(), TestGate::Guest(1));
    assert!(machine.on(TableEvent::TransactionEnded).is_empty());
}

#[test]
fn a_guest_that_does_not_fit_waits_for_its_shape() {
    let mut machine = Machine::streaming(TestGate::Guest(1));
    machine.offer(TestGate::Guest(2));
    assert_eq!(names(&machine.on(TableEvent::TransactionEnded)), ["check gate Guest(2)"]);
    let checked = |fits| TableEvent::GateChecked { token: token(), gate: TestGate::Guest(2), fits };
    assert!(machine.on(checked(false)).is_empty());
    assert!(machine.is_open(1), "the guest before serves");
    let effects = machine.announce(1, 1);
    assert_eq!(names(&effects), ["close 1", "recheck", "open 1 Guest(1)"]);
    machine.opened(1, 1, TestGate::Guest(1));
    assert_eq!(names(&machine.on(checked(true))), ["reopen [1] Guest(2)"]);
}

#[test]
fn a_shut_gate_suspends_and_the_next_guest_reopens() {
    let mut machine = Machine::streaming(TestGate::Guest(1));
    let shut = TestGate::Shut("guest missing".into());
    machine.offer(shut.clone());
    let effects = machine.on(TableEvent::TransactionEnded);
    assert_eq!(names(&effects), ["suspend Failed Some(Shut(\"guest missing\"))"]);
    assert!(machine.is_open(1), "rows are not dropped before consumers can know");
    assert_eq!(names(&machine.store_suspension(SuspendCause::Failed, Some(shut))), ["close 1"]);
    assert!(!machine.is_open(1));
    machine.offer(TestGate::Guest(2));
    assert_eq!(names(&machine.on(TableEvent::TransactionEnded)), ["reopen [1] Guest(2)"]);
}

#[test]
fn a_guest_for_a_table_that_returns_by_itself_is_kept_for_its_return() {
    for cause in [SuspendCause::Absent, SuspendCause::Locked, SuspendCause::Shed] {
        let mut machine = Machine::suspended(cause);
        machine.offer(TestGate::Guest(1));
        assert!(machine.on(TableEvent::TransactionEnded).is_empty(), "{cause:?}");
        assert_eq!(machine.gate(), TestGate::Guest(1));
    }
}

#[test]
fn the_gate_offered_at_the_start_is_live_at_once() {
    let mut machine = Machine::new();
    machine.offer(TestGate::Guest(1));
    assert!(machine.on(TableEvent::GatewayStarted).is_empty());
    assert_eq!(machine.gate(), TestGate::Guest(1));
}

#[test]
fn an_absent_table_is_suspended_and_its_return_reopens_it() {
    let mut machine = Machine::streaming(TestGate::Open);
    assert_eq!(names(&machine.absent()), ["suspend Absent None"]);
    machine.store_suspension(SuspendCause::Absent, None);
    assert!(machine.absent().is_empty(), "said once");
    machine.announce(2, 0);
    assert_eq!(names(&machine.present(2)), ["reopen [2] Open"], "relation 1 is another table");
    machine.opened(2, 0, TestGate::Open);
    assert!(machine.is_open(2) && !machine.is_open(1));
    // A dropped table lifts what was wrong with it.
    let mut machine = Machine::suspended(SuspendCause::Failed);
    assert_eq!(names(&machine.absent()), ["suspend Absent None"]);
    // A shed table that is dropped meanwhile shows that when it returns.
    assert!(Machine::suspended(SuspendCause::Shed).absent().is_empty());
}

#[test]
fn another_relation_of_the_name_is_compared_with_the_stored_one() {
    let mut machine = Machine::streaming(TestGate::Open);
    assert!(machine.present(1).is_empty());
    assert_eq!(names(&machine.present(2)), ["read stored 2"]);
    let stored = |stored| TableEvent::StoredRelationRead { token: token(), relid: 2, stored };
    assert!(machine.on(stored(None)).is_empty(), "nothing to compare with");
    assert!(machine.on(stored(Some(2))).is_empty());
    assert_eq!(names(&machine.on(stored(Some(1)))), ["reopen [] Open"], "1 carries no rows now");
    assert!(!machine.is_open(1));
    assert!(machine.present(2).is_empty(), "seen");
}

#[test]
fn the_first_look_of_a_session_confirms_relations() {
    let mut machine = Machine::streaming(TestGate::Open);
    machine.on(TableEvent::SessionStarted);
    assert!(!machine.is_open(1), "announcements of another session are void");
    machine.on(TableEvent::RelationConfirmed { token: token(), relid: 1 });
    assert!(machine.present(1).is_empty());
}

#[test]
fn a_locked_table_returns_when_the_lock_is_gone() {
    let mut machine = Machine::suspended(SuspendCause::Locked);
    assert_eq!(names(&machine.present(1)), ["check lock 1"]);
    let checked = |is_locked| TableEvent::LockChecked { token: token(), relid: 1, is_locked };
    assert!(machine.on(checked(true)).is_empty());
    assert_eq!(names(&machine.on(checked(false))), ["reopen [1] Open"]);
    machine.opened(1, 0, TestGate::Open);
    assert!(machine.on(checked(false)).is_empty(), "a late answer");
}

#[test]
fn pressure_sheds_tables_that_allow_it_and_calm_brings_them_back() {
    let mut machine = Machine::streaming(TestGate::Open);
    assert!(machine.on(TableEvent::PressureChanged(PressureLevel::Throttled)).is_empty());
    let shedding = || TableEvent::PressureChanged(PressureLevel::Shedding);
    assert_eq!(names(&machine.on(shedding())), ["suspend Shed None"]);
    machine.store_suspension(SuspendCause::Shed, None);
    assert!(machine.on(shedding()).is_empty());
    let effects = machine.on(TableEvent::PressureChanged(PressureLevel::Calm));
    assert_eq!(names(&effects), ["reopen [1] Open"]);
    let mut kept: Tables<TestGate> = Tables::new([(token(), false)]);
    assert!(kept.on(shedding()).is_empty(), "not allowed");
}

#[test]
fn a_failed_batch_suspends() {
    let mut machine = Machine::streaming(TestGate::Open);
    let suspension = suspension(SuspendCause::Failed);
    let failed = TableEvent::TableFailed { token: token(), suspension, gate: None };
    assert_eq!(names(&machine.on(failed)), ["suspend Failed None"]);
    assert_eq!(machine.cause(), None, "until it is stored: rows are not dropped silently");
}

#[test]
fn a_snapshot_suspends_only_the_guest_that_it_failed_with() {
    let mut machine = Machine::streaming(TestGate::Guest(1));
    let failed = |guest| {
        let gate = TestGate::Guest(guest);
        TableEvent::SnapshotFailed { token: token(), gate, reason: "trap".into() }
    };
    assert!(machine.on(failed(2)).is_empty(), "the table has another guest by now");
    assert_eq!(names(&machine.on(failed(1))), ["suspend Failed None"]);
}

#[test]
fn rewritten_rows_reseed_once_stored() {
    let mut machine = Machine::streaming(TestGate::Open);
    assert!(
        machine.fingerprint(1, DdlFingerprint::for_test("1"), 50).is_empty(),
        "nothing to compare"
    );
    let effects = machine.fingerprint(1, DdlFingerprint::for_test("2"), 60);
    assert_eq!(names(&effects), ["reseed 60"]);
    let again = machine.fingerprint(1, DdlFingerprint::for_test("2"), 70);
    assert_eq!(names(&again), ["reseed 70"], "it was not stored");
    let Some(TableEffect::Reseed { seen, .. }) = again.into_iter().next() else { panic!() };
    machine.on(TableEvent::ReseedStored { token: token(), seen });
    assert!(machine.fingerprint(1, DdlFingerprint::for_test("2"), 80).is_empty());
    assert!(
        machine.fingerprint(2, DdlFingerprint::for_test("3"), 90).is_empty(),
        "another relation"
    );
}

#[test]
fn types_are_read_again_when_the_stream_has_passed_the_look() {
    let mut machine = Machine::streaming(TestGate::Open);
    machine.fingerprint(1, DdlFingerprint::for_composite("1"), 50);
    assert!(machine.fingerprint(1, DdlFingerprint::for_composite("2"), 60).is_empty());
    let progress = |lsn| TableEvent::ProgressPublished { lsn: Lsn(lsn) };
    assert!(machine.on(progress(59)).is_empty(), "rows of the old shape may follow");
    // A look that shows nothing new forgets nothing.
    machine.fingerprint(1, DdlFingerprint::for_composite("2"), 61);
    let effects = machine.on(progress(60));
    assert_eq!(names(&effects), ["forget types", "reopen [1] Open types"]);
    machine.opened(1, 0, TestGate::Open);
    assert_eq!(machine.on(progress(60)).len(), 2, "that outlet was opened with the old types");
    let (change, gate) = (change(1, 0), TestGate::Open);
    machine.on(TableEvent::OutletOpened { token: token(), change, gate, types_reread: true });
    assert!(machine.on(progress(60)).is_empty());
}

#[test]
fn a_suspended_table_reads_types_when_it_returns() {
    let mut machine = Machine::suspended(SuspendCause::Shed);
    machine.fingerprint(1, DdlFingerprint::for_composite("1"), 50);
    machine.fingerprint(1, DdlFingerprint::for_composite("2"), 60);
    let effects = machine.on(TableEvent::ProgressPublished { lsn: Lsn(60) });
    assert_eq!(names(&effects), ["forget types"]);
    assert!(machine.on(TableEvent::ProgressPublished { lsn: Lsn(61) }).is_empty());
}

#[test]
fn a_table_without_announcement_is_registered_from_the_catalog() {
    let mut machine = Machine::new();
    machine.offer(TestGate::Guest(1));
    assert_eq!(names(&machine.on(TableEvent::TransactionEnded)), ["reopen [] Guest(1)"]);
    let gate = TestGate::Guest(1);
    machine.on(TableEvent::SchemaRegistered { token: token(), gate, types_reread: false });
    assert_eq!(machine.gate(), TestGate::Guest(1));
}

#[test]
fn events_of_unknown_tables_have_no_effect() {
    let mut machine = Machine::new();
    let token = Token::of_alias("other");
    let event = TableEvent::RelationAnnounced { token: token.clone(), change: change(9, 0) };
    assert!(machine.on(event).is_empty());
    assert_eq!(machine.0.gate(&token), TestGate::Open);
    assert!(!machine.0.is_open(&token, 9));
}
