//! The state of one table, and its transitions.
//!
//! Pure. Other tables are not known here.

use std::collections::BTreeMap;

use walgate_wire::{Lsn, Token};

use super::{SeenFingerprint, SuspendCause, Suspension, TableEffect, TableEvent, TableGate};
use crate::{postgres::replication::stream::RelationChange, wal_budget::PressureLevel};

/// A relation that carries rows of the table in this session.
#[derive(Clone, Debug)]
pub(super) struct AnnouncedRelation {
    pub(super) change: RelationChange,
    /// Its rows are published through the table's gate; otherwise they are skipped.
    is_open: bool,
}

#[derive(Clone, Debug)]
pub(super) struct TableState<G> {
    token: Token,
    may_shed: bool,
    /// `None` while the table streams.
    pub(super) suspension: Option<Suspension>,
    pub(super) offered_gate: G,
    /// The gate of all open outlets, and of snapshots that begin now.
    pub(super) gate: G,
    /// Which relation the table was when it was looked at last in this session.
    relid: Option<u32>,
    pub(super) announced: BTreeMap<u32, AnnouncedRelation>,
    fingerprint: Option<SeenFingerprint>,
}

/// Why a table that may be shed is suspended under pressure.
const SHED_REASON: &str =
    "the slot holds back more WAL than [postgres] wal_budget allows, and the table may be shed";

impl<G: TableGate> TableState<G> {
    pub(super) fn new(token: Token, may_shed: bool) -> Self {
        TableState {
            token,
            may_shed,
            suspension: None,
            offered_gate: G::default(),
            gate: G::default(),
            relid: None,
            announced: BTreeMap::new(),
            fingerprint: None,
        }
    }

    pub(super) fn is_open(&self, relid: u32) -> bool {
        self.suspension.is_none() && self.announced.get(&relid).is_some_and(|found| found.is_open)
    }

    /// An event that is about this table.
    pub(super) fn on(&mut self, event: TableEvent<G>) -> Vec<TableEffect<G>> {
        match event {
            TableEvent::RelationConfirmed { relid, .. } => self.confirm_relation(relid),
            TableEvent::RelationAnnounced { change, .. } => self.announce(change),
            TableEvent::GuestOffered { gate, .. } => {
                self.offered_gate = gate;
                vec![]
            }
            TableEvent::GateChecked { gate, fits, .. } if fits => self.adopt(gate),
            TableEvent::TablePresent { relid, .. } => self.find_present(relid),
            TableEvent::TableAbsent { reason, .. } => self.find_absent(&reason),
            TableEvent::LockChecked { relid, is_locked, .. } => {
                let waits = self.cause() == Some(SuspendCause::Locked);
                if waits && !is_locked { self.resume(relid) } else { vec![] }
            }
            TableEvent::StoredRelationRead { relid, stored, .. } => match stored {
                Some(stored) if stored != relid => self.resume(relid),
                _ => vec![],
            },
            TableEvent::FingerprintRead { relid, fingerprint, lsn, .. } => {
                let before = self.fingerprint.as_ref();
                let (seen, reason) = SeenFingerprint::compare(before, relid, fingerprint, lsn);
                self.see_fingerprint(seen, reason, lsn)
            }
            TableEvent::ReseedStored { seen, .. } => {
                self.fingerprint = Some(seen);
                vec![]
            }
            TableEvent::TableFailed { suspension, gate, .. } => self.suspend(suspension, gate),
            TableEvent::SnapshotFailed { gate, reason, .. } if gate.is_same(&self.gate) => {
                self.suspend(Suspension { cause: SuspendCause::Failed, reason }, None)
            }
            TableEvent::OutletOpened { change, gate, types_reread, .. } => {
                self.confirm_open(change, gate, types_reread)
            }
            TableEvent::SchemaRegistered { gate, types_reread, .. } => {
                self.confirm_gate(gate, types_reread);
                vec![]
            }
            TableEvent::SuspensionStored { suspension, gate, .. } => {
                self.confirm_suspension(suspension, gate)
            }
            // A guest that does not fit yet waits; a snapshot of another gate proves nothing.
            TableEvent::GateChecked { .. } | TableEvent::SnapshotFailed { .. } => vec![],
            // About all tables: `Tables::on` spreads them.
            TableEvent::GatewayStarted
            | TableEvent::SessionStarted
            | TableEvent::TransactionEnded
            | TableEvent::ProgressPublished { .. }
            | TableEvent::PressureChanged(_) => vec![],
        }
    }

    /// Nothing is published before the first session, so the offered gate needs no ceremony.
    pub(super) fn adopt_offered_gate(&mut self) -> Vec<TableEffect<G>> {
        self.gate = self.offered_gate.clone();
        vec![]
    }

    pub(super) fn forget_session(&mut self) -> Vec<TableEffect<G>> {
        self.announced.clear();
        self.relid = None;
        vec![]
    }

    fn confirm_relation(&mut self, relid: u32) -> Vec<TableEffect<G>> {
        self.relid = Some(relid);
        vec![]
    }

    fn announce(&mut self, change: RelationChange) -> Vec<TableEffect<G>> {
        let relid = change.relation.relid;
        let found = AnnouncedRelation { change: change.clone(), is_open: false };
        let before = self.announced.insert(relid, found);
        let is_altered = before.is_some_and(|before| before.change.relation != change.relation);
        let mut effects = vec![TableEffect::CloseOutlet { relid }];
        match self.cause() {
            // What was wrong with the table may have been altered away.
            Some(SuspendCause::Failed) if is_altered => {}
            Some(_) => return effects,
            None => {}
        }
        if is_altered && !self.offered_gate.is_same(&self.gate) {
            // The offered guest may have waited for this shape.
            effects.push(TableEffect::RecheckOffers);
        }
        let gate = self.gate.clone();
        effects.push(TableEffect::OpenOutlet { token: self.token.clone(), change, gate });
        effects
    }

    /// Guests are swapped between two transactions only.
    pub(super) fn compare_gates(&mut self) -> Vec<TableEffect<G>> {
        let offered = self.offered_gate.clone();
        if offered.is_same(&self.gate) {
            return vec![];
        }
        if let Some(reason) = offered.shut_reason() {
            let suspension = Suspension { cause: SuspendCause::Failed, reason: reason.into() };
            return self.suspend(suspension, Some(offered));
        }
        let open = self.announced.values().filter(|found| found.is_open);
        let changes: Vec<RelationChange> = open.map(|found| found.change.clone()).collect();
        // A guest made for a shape that rows do not have yet must not replace one that serves.
        if self.suspension.is_none() && self.gate.has_guest() && !changes.is_empty() {
            let token = self.token.clone();
            return vec![TableEffect::CheckGate { token, changes, gate: offered }];
        }
        self.adopt(offered)
    }

    fn adopt(&mut self, gate: G) -> Vec<TableEffect<G>> {
        match self.cause() {
            None | Some(SuspendCause::Failed) => self.reopen(gate, false),
            // It is used when the table returns.
            Some(SuspendCause::Absent | SuspendCause::Locked | SuspendCause::Shed) => {
                self.gate = gate;
                vec![]
            }
        }
    }

    fn find_present(&mut self, relid: u32) -> Vec<TableEffect<G>> {
        let token = self.token.clone();
        match self.cause() {
            Some(SuspendCause::Absent) => self.resume(relid),
            Some(SuspendCause::Locked) => vec![TableEffect::CheckLock { token, relid }],
            Some(SuspendCause::Failed | SuspendCause::Shed) => vec![],
            None if self.relid.replace(relid) == Some(relid) => vec![],
            None => vec![TableEffect::ReadStoredRelation { token, relid }],
        }
    }

    fn find_absent(&mut self, reason: &str) -> Vec<TableEffect<G>> {
        if let Some(SuspendCause::Absent | SuspendCause::Shed) = self.cause() {
            return vec![];
        }
        // Whatever was wrong with the table that is gone, its return lifts the suspension.
        let suspension = Suspension { cause: SuspendCause::Absent, reason: reason.into() };
        self.suspend(suspension, None)
    }

    /// The table streams again, as the relation `relid`.
    fn resume(&mut self, relid: u32) -> Vec<TableEffect<G>> {
        self.announced.retain(|&announced, _| announced == relid);
        self.reopen(self.gate.clone(), false)
    }

    fn see_fingerprint(
        &mut self,
        seen: SeenFingerprint,
        reason: Option<&'static str>,
        lsn: Lsn,
    ) -> Vec<TableEffect<G>> {
        match reason {
            Some(reason) => {
                let token = self.token.clone();
                vec![TableEffect::Reseed { token, lsn, reason, seen }]
            }
            None => {
                self.fingerprint = Some(seen);
                vec![]
            }
        }
    }

    /// Rows of a composite type's old shape may precede `passed`, none of them follows.
    pub(super) fn reread_types(&mut self, passed: Lsn) -> Vec<TableEffect<G>> {
        let Some(seen) = &mut self.fingerprint else { return vec![] };
        if !seen.must_reread_types(passed) {
            return vec![];
        }
        let mut effects = vec![TableEffect::ForgetTypes];
        if self.suspension.is_some() {
            // They are read when the table is opened again.
            seen.mark_types_reread();
        } else {
            effects.extend(self.reopen(self.gate.clone(), true));
        }
        effects
    }

    pub(super) fn follow_pressure(&mut self, pressure: PressureLevel) -> Vec<TableEffect<G>> {
        match (pressure, self.cause()) {
            (PressureLevel::Shedding, None) if self.may_shed => {
                let cause = SuspendCause::Shed;
                self.suspend(Suspension { cause, reason: SHED_REASON.into() }, None)
            }
            (PressureLevel::Calm, Some(SuspendCause::Shed)) => {
                self.reopen(self.gate.clone(), false)
            }
            _ => vec![],
        }
    }

    fn reopen(&self, gate: G, types_reread: bool) -> Vec<TableEffect<G>> {
        let changes = self.announced.values().map(|found| found.change.clone()).collect();
        let token = self.token.clone();
        vec![TableEffect::ReopenOutlets { token, changes, gate, types_reread }]
    }

    fn suspend(&self, suspension: Suspension, gate: Option<G>) -> Vec<TableEffect<G>> {
        vec![TableEffect::Suspend { token: self.token.clone(), suspension, gate }]
    }

    fn confirm_open(
        &mut self,
        change: RelationChange,
        gate: G,
        types_reread: bool,
    ) -> Vec<TableEffect<G>> {
        let relid = change.relation.relid;
        self.confirm_gate(gate, types_reread);
        match self.announced.get_mut(&relid) {
            Some(found) if found.change.relation == change.relation => {
                found.is_open = true;
                self.relid = Some(relid);
                vec![]
            }
            // Another shape was announced meanwhile: rows must not be read by this one.
            _ => vec![TableEffect::CloseOutlet { relid }],
        }
    }

    /// The stored schema confirms that the table streams through this gate.
    fn confirm_gate(&mut self, gate: G, types_reread: bool) {
        if !gate.is_same(&self.gate) {
            self.announced.values_mut().for_each(|found| found.is_open = false);
        }
        self.gate = gate;
        self.suspension = None;
        if let Some(seen) = self.fingerprint.as_mut().filter(|_| types_reread) {
            seen.mark_types_reread();
        }
    }

    fn confirm_suspension(
        &mut self,
        suspension: Suspension,
        gate: Option<G>,
    ) -> Vec<TableEffect<G>> {
        self.suspension = Some(suspension);
        if let Some(gate) = gate {
            self.gate = gate;
        }
        let close = |(&relid, found): (&u32, &mut AnnouncedRelation)| {
            found.is_open = false;
            TableEffect::CloseOutlet { relid }
        };
        self.announced.iter_mut().map(close).collect()
    }

    fn cause(&self) -> Option<SuspendCause> {
        self.suspension.as_ref().map(|suspension| suspension.cause)
    }
}
