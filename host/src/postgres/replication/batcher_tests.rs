//! Tests of the batcher: order of events, positions, batches.

use super::*;
use crate::{
    postgres::replication::pgoutput::decode,
    rows::test_support::{table_version, tuple},
};
use proptest::prelude::*;

const A: u32 = 1;
const B: u32 = 2;
const UNWANTED: u32 = 3;

fn batcher(resume: Position, batch_bytes: usize) -> TransactionBatcher {
    let mut batcher = TransactionBatcher::new(resume, batch_bytes);
    batcher.set_table(A, Some(table_version("a", A, 1)));
    batcher.set_table(B, Some(table_version("b", B, 1)));
    batcher.set_table(UNWANTED, None);
    batcher
}

fn begin(batcher: &mut TransactionBatcher, lsn: u64) {
    batcher.accept(Message::Begin { final_lsn: Lsn(lsn), at_micros: 0, xid: lsn as u32 }).unwrap();
}

fn insert(batcher: &mut TransactionBatcher, relid: u32) {
    let row = tuple(&[(b'b', &[0; 93])]);
    batcher.accept(Message::Insert { relid, new: Tuple { bytes: &row } }).unwrap();
}

fn commit(batcher: &mut TransactionBatcher, lsn: u64) {
    commit_to(batcher, lsn, lsn + 1);
}

fn commit_to(batcher: &mut TransactionBatcher, lsn: u64, end_lsn: u64) {
    batcher
        .accept(Message::Commit { commit_lsn: Lsn(lsn), end_lsn: Lsn(end_lsn), at_micros: 0 })
        .unwrap();
}

fn transaction(batcher: &mut TransactionBatcher, lsn: u64, relids: &[u32]) {
    begin(batcher, lsn);
    relids.iter().for_each(|&relid| insert(batcher, relid));
    commit(batcher, lsn);
}

/// `a 10#1 10#2`, `commit 10#3`, `idle` …
fn emitted(batcher: &mut TransactionBatcher) -> Vec<String> {
    std::iter::from_fn(|| batcher.pop_event())
        .map(|event| match event {
            Event::Rows(batch) => {
                let positions: Vec<String> = batch
                    .changes
                    .iter()
                    .map(|change| format!("{}#{}", batch.txn(change).lsn.0, change.ordinal))
                    .collect();
                format!("{} {}", batch.table.name.table, positions.join(" "))
            }
            Event::Commit { position, end_lsn, .. } => {
                let (lsn, n) = (position.commit_lsn.0, position.ordinal);
                match end_lsn.0 - lsn {
                    1 => format!("commit {lsn}#{n}"),
                    _ => format!("commit {lsn}#{n} to {end_lsn}"),
                }
            }
            Event::KeepAlive { wal_end, .. } => format!("keepalive {}", wal_end.0),
            Event::Idle => "idle".into(),
            Event::Relation(change) => format!("relation {}", change.relation.name),
        })
        .collect()
}

#[test]
fn rows_of_one_table_span_transactions() {
    let mut g = batcher(Position::default(), 10_000);
    transaction(&mut g, 10, &[A, A]);
    transaction(&mut g, 20, &[A]);
    assert_eq!(emitted(&mut g), [""; 0]);
    g.add_idle();
    assert_eq!(emitted(&mut g), ["a 10#1 10#2 20#1", "commit 20#2", "idle"]);
}

#[test]
fn a_batch_ends_where_the_table_changes_and_at_the_commit_inside_it() {
    let mut g = batcher(Position::default(), 10_000);
    transaction(&mut g, 10, &[A]);
    transaction(&mut g, 20, &[A, B, UNWANTED, B]);
    assert!(g.add_keepalive(Lsn(30), false));
    assert_eq!(
        emitted(&mut g),
        ["a 10#1", "commit 10#2", "a 20#1", "b 20#2 20#4", "commit 20#5", "keepalive 30"]
    );
}

#[test]
fn a_full_batch_is_cut_and_its_tail_goes_on() {
    let mut g = batcher(Position::default(), 250);
    transaction(&mut g, 10, &[A]);
    begin(&mut g, 20);
    for _ in 0..6 {
        insert(&mut g, A);
    }
    assert!(g.in_transaction() && !g.add_keepalive(Lsn(15), true));
    commit(&mut g, 20);
    g.add_idle();
    assert_eq!(
        emitted(&mut g),
        ["a 10#1", "commit 10#2", "a 20#1 20#2 20#3", "a 20#4 20#5 20#6", "commit 20#7", "idle"]
    );
}

#[test]
fn what_is_not_configured_only_counts() {
    let mut g = batcher(Position::default(), 10_000);
    transaction(&mut g, 10, &[UNWANTED]);
    transaction(&mut g, 20, &[UNWANTED, UNWANTED]);
    g.add_idle();
    assert_eq!(emitted(&mut g), ["commit 20#3", "idle"]);
    transaction(&mut g, 30, &[UNWANTED, A]);
    g.add_idle();
    assert_eq!(emitted(&mut g), ["a 30#2", "commit 30#3", "idle"]);
}

#[test]
fn what_is_in_the_stream_is_skipped() {
    let mut g = batcher(Position::new(Lsn(20), 2), 10_000);
    transaction(&mut g, 10, &[A]);
    transaction(&mut g, 20, &[A, A, A]);
    transaction(&mut g, 30, &[A]);
    g.add_idle();
    assert_eq!(emitted(&mut g), ["a 20#3 30#1", "commit 30#2", "idle"]);
    let mut g = batcher(Position::new(Lsn(20), 4), 10_000);
    transaction(&mut g, 20, &[A, A, A]);
    g.add_idle();
    assert_eq!(emitted(&mut g), ["idle"]);
}

/// With nothing in the log between two commit records the one ends where the next begins.
#[test]
fn a_commit_may_begin_where_the_last_one_ended() {
    let transactions = |g: &mut TransactionBatcher| {
        for lsn in [16, 32, 48] {
            begin(g, lsn);
            insert(g, A);
            commit_to(g, lsn, lsn + 16);
            // Only changes behind the last commit are emitted again.
            g.add_idle();
        }
        emitted(g)
    };
    let all = [
        "a 16#1",
        "commit 16#2 to 0/20",
        "idle",
        "a 32#1",
        "commit 32#2 to 0/30",
        "idle",
        "a 48#1",
        "commit 48#2 to 0/40",
        "idle",
    ];
    assert_eq!(transactions(&mut batcher(Position::default(), 10_000)), all);
    // The second is not taken for a part of the first, whose end it begins at.
    assert_eq!(
        transactions(&mut batcher(Position::new(Lsn(16), 2), 10_000)),
        [&["idle"], &all[3..]].concat()
    );
    assert_eq!(
        transactions(&mut batcher(Position::new(Lsn(32), 1), 10_000)),
        [&["idle"], &all[4..]].concat()
    );
}

#[test]
fn a_truncate_counts_one_a_relation() {
    let mut g = batcher(Position::default(), 10_000);
    begin(&mut g, 10);
    let truncate =
        [&b"T\0\0\0\x03\0"[..], &A.to_be_bytes(), &UNWANTED.to_be_bytes(), &B.to_be_bytes()]
            .concat();
    g.accept(decode(&truncate).unwrap()).unwrap();
    commit(&mut g, 10);
    g.add_idle();
    assert_eq!(emitted(&mut g), ["a 10#1", "b 10#3", "commit 10#4", "idle"]);
}

fn relation(relid: u32) -> Message<'static> {
    Message::Relation(Relation {
        relid,
        namespace: "public".into(),
        name: "a".into(),
        identity: walgate_wire::Identity::Default,
        columns: vec![],
    })
}

#[test]
fn a_relation_is_asked_about_before_its_rows() {
    let mut g = batcher(Position::default(), 10_000);
    begin(&mut g, 10);
    insert(&mut g, A);
    g.accept(relation(A)).unwrap();
    assert_eq!(emitted(&mut g), ["a 10#1", "relation a"]);
    let row = tuple(&[(b'n', b"")]);
    assert!(
        g.accept(Message::Insert { relid: A, new: Tuple { bytes: &row } }).is_err(),
        "nobody answered"
    );
    let version = table_version("a2", A, 1);
    g.set_table(A, Some(version));
    insert(&mut g, A);
    commit(&mut g, 10);
    g.add_idle();
    assert_eq!(emitted(&mut g), ["a2 10#3", "commit 10#4", "idle"]);
}

#[test]
fn an_empty_batch_does_not_outlive_its_version() {
    let mut g = batcher(Position::default(), 50);
    begin(&mut g, 10);
    insert(&mut g, A);
    g.accept(relation(A)).unwrap();
    g.set_table(A, Some(table_version("a2", A, 1)));
    insert(&mut g, A);
    assert_eq!(emitted(&mut g), ["a 10#1", "relation a", "a2 10#2"]);
}

#[test]
fn a_table_is_suspended_after_a_row_that_cannot_be_carried() {
    let mut g = batcher(Position::default(), 10_000);
    transaction(&mut g, 10, &[A]);
    begin(&mut g, 20);
    insert(&mut g, A);
    let two = tuple(&[(b'n', b""), (b'n', b"")]);
    let error = g.accept(Message::Insert { relid: A, new: Tuple { bytes: &two } }).unwrap_err();
    assert_eq!(error.table(), Some("public.a"));
    g.set_table(A, None);
    insert(&mut g, A);
    insert(&mut g, B);
    commit(&mut g, 20);
    g.add_idle();
    assert_eq!(
        emitted(&mut g),
        ["a 10#1", "commit 10#2", "a 20#1", "b 20#4", "commit 20#5", "idle"]
    );
}

#[test]
fn a_stream_out_of_order_is_refused() {
    let mut g = batcher(Position::default(), 10_000);
    assert!(
        g.accept(Message::Commit { commit_lsn: Lsn(1), end_lsn: Lsn(2), at_micros: 0 }).is_err()
    );
    begin(&mut g, 10);
    assert!(g.accept(Message::Begin { final_lsn: Lsn(1), at_micros: 0, xid: 0 }).is_err());
    let mut g = batcher(Position::default(), 10_000);
    begin(&mut g, 10);
    let row = tuple(&[(b'n', b"")]);
    assert!(g.accept(Message::Insert { relid: 99, new: Tuple { bytes: &row } }).is_err());
    assert!(
        g.accept(Message::Commit { commit_lsn: Lsn(9), end_lsn: Lsn(9), at_micros: 0 }).is_err()
    );
}

proptest! {
    /// Whatever the transactions, sizes, pauses and resume point: every wanted change is emitted
    /// once, positions rise, and a commit is emitted after all of its rows.
    #[test]
    fn every_change_is_told_once_and_in_order(
        transactions in prop::collection::vec((prop::collection::vec(A..=UNWANTED, 0..8), any::<bool>()), 0..20),
        batch_bytes in prop::sample::select(vec![50usize, 250, 1000, 100_000]),
        resume in (0u64..220, 0u32..9),
    ) {
        let resume = Position::new(Lsn(resume.0), resume.1);
        let mut g = batcher(resume, batch_bytes);
        let mut expected = vec![];
        let mut last_commit = None;
        for (i, (relids, pause)) in transactions.iter().enumerate() {
            let lsn = (i as u64 + 1) * 10;
            transaction(&mut g, lsn, relids);
            for (n, &relid) in relids.iter().enumerate() {
                let position = Position::new(Lsn(lsn), n as u32 + 1);
                if relid != UNWANTED && position > resume {
                    expected.push((position, relid));
                }
            }
            let end = Position::new(Lsn(lsn), relids.len() as u32 + 1);
            last_commit = if end > resume { Some(end) } else { last_commit };
            if *pause { g.add_idle() }
        }
        g.add_idle();
        let (mut got, mut last, mut commits) = (vec![], Position::default(), vec![]);
        while let Some(event) = g.pop_event() {
            match event {
                Event::Rows(batch) => for change in &batch.changes {
                    let position = batch.position(change);
                    prop_assert!(position > last);
                    last = position;
                    got.push((position, batch.table.relid));
                },
                Event::Commit { position, .. } => {
                    prop_assert!(position > last);
                    last = position;
                    commits.push(position);
                }
                _ => {}
            }
        }
        prop_assert_eq!(got, expected);
        prop_assert_eq!(commits.last().copied(), last_commit);
    }
}
