//! Tables by example, and a model: whatever is loaded when and killed where, each change counts
//! once.

use proptest::prelude::*;
use walgate_wire::{Change, Column, Identity, InitStart, Op};

use super::*;

fn token(name: &str) -> Token {
    Token::parse(name).unwrap()
}

fn column(name: &str, attnum: i16, type_name: &str, key: bool) -> Column {
    let oid = if type_name == "integer" { 23 } else { 25 };
    let name = name.into();
    let type_name = type_name.into();
    let nullable = !key;
    Column { name, type_name, oid, base_oid: None, made_of: None, attnum, nullable, key }
}

fn schema(name: &str, revision: u64, state: TableState, lsn: u64) -> Schema {
    Schema {
        table: format!("public.{name}"),
        token: token(name),
        relid: None,
        revision,
        state,
        columns: vec![column("id", 1, "integer", true), column("note", 2, "text", false)],
        key: vec!["id".into()],
        identity: Identity::Default,
        old: vec![0],
        guest: None,
        lsn: Lsn(lsn),
        reason: None,
    }
}

fn start(epoch: u32, lsn: u64, cdc_sequence: u64, xid_window: XidWindow) -> InitStart {
    InitStart {
        v: 1,
        table: String::new(),
        snapshot_id: "s".into(),
        lsn: Lsn(lsn),
        epoch: Epoch(epoch),
        compression_enabled: false,
        dictionary_id: None,
        dictionary_revision: None,
        dictionary_sha256: None,
        schema_revision: 1,
        columns: vec![],
        key: vec![],
        identity: Identity::Default,
        guest: None,
        xid_window,
        cdc_sequence,
        estimated_rows: 0,
        started_at: 0,
    }
}

fn place(epoch: u32, lsn: u64, ordinal: u32) -> StreamPosition {
    StreamPosition { epoch: Epoch(epoch), position: Position::new(Lsn(lsn), ordinal) }
}

/// Tables of these names, none loaded.
fn tables(names: &[&str]) -> Tables {
    let tokens: Vec<Token> = names.iter().map(|name| token(name)).collect();
    let (mut tables, forgotten) = Tables::new(&tokens, StoredState::default());
    assert!(forgotten.is_empty());
    for name in names {
        assert!(!tables.on_schema(schema(name, 1, TableState::Live, 0)));
    }
    tables
}

fn load(tables: &mut Tables, name: &str, lsn: u64, seq: u64) -> (Vec<TableRecord>, Checkpoint) {
    let start = start(1, lsn, seq, XidWindow::default());
    adopted(tables, &start, &schema(name, 1, TableState::Live, 0), 0)
}

fn adopted(
    tables: &mut Tables,
    start: &InitStart,
    schema: &Schema,
    finished_at: i64,
) -> (Vec<TableRecord>, Checkpoint) {
    let (records, checkpoint) = tables.complete_load(start, schema, finished_at, 0);
    tables.adopt_load(records.clone(), checkpoint);
    (records, checkpoint)
}

#[test]
fn what_is_wanted_depends_on_copy_and_state() {
    let (mut tables, _) = Tables::new(&[token("a"), token("b")], StoredState::default());
    assert_eq!(tables.tables_to_load().count(), 0, "no schema yet");
    tables.on_schema(schema("a", 1, TableState::Live, 0));
    tables.on_schema(schema("b", 3, TableState::Suspended, 0));
    let wanted =
        |tables: &Tables| tables.tables_to_load().map(|(t, _)| t.to_string()).collect::<Vec<_>>();
    assert_eq!(wanted(&tables), ["a"]);
    load(&mut tables, "a", 100, 5);
    assert!(wanted(&tables).is_empty());
    tables.on_schema(schema("b", 5, TableState::Live, 0));
    assert_eq!(wanted(&tables), ["b"]);
    assert_eq!(tables.take_state_changes().len(), 2);
    assert!(tables.take_state_changes().is_empty());
}

#[test]
fn a_reseed_counts_for_copies_below_it() {
    let mut tables = tables(&["a"]);
    load(&mut tables, "a", 100, 5);
    assert!(!tables.on_schema(schema("a", 7, TableState::Reseed, 100)));
    assert!(tables.on_schema(schema("a", 9, TableState::Reseed, 101)));
    assert_eq!(tables.required_watermark(&token("a")), Lsn(101));
    // A snapshot from before the reseed that arrives after it does not do.
    let (records, _) = load(&mut tables, "a", 100, 6);
    assert!(records[0].reload.is_some());
    assert_eq!(tables.tables_to_load().count(), 1);
    let (records, _) = load(&mut tables, "a", 101, 6);
    assert!(records[0].reload.is_none());
    // Positions of an earlier epoch say nothing.
    tables.begin_epoch(20);
    assert!(!tables.on_schema(schema("a", 15, TableState::Reseed, 9999)));
    assert_eq!(tables.required_watermark(&token("a")), Lsn(0));
}

#[test]
fn what_could_not_be_applied_is_not_met_again() {
    let mut tables = tables(&["a", "b"]);
    tables.require_snapshot_beyond(&token("a"), Position::new(Lsn(50), 3));
    tables.require_snapshot_beyond(&token("a"), Position::new(Lsn(40), 1));
    assert_eq!(tables.required_watermark(&token("a")), Lsn(51));
    assert_eq!(tables.required_watermark(&token("b")), Lsn(0));
    let (records, _) = load(&mut tables, "a", 50, 5);
    assert!(records[0].reload.is_some(), "its watermark is not beyond it");
    tables.begin_epoch(100);
    assert_eq!(tables.required_watermark(&token("a")), Lsn(0), "positions of another epoch");
}

#[test]
fn a_new_epoch_voids_every_copy() {
    let mut tables = tables(&["a", "b"]);
    load(&mut tables, "a", 100, 5);
    load(&mut tables, "b", 110, 6);
    assert!(matches!(
        tables.judge_change(&token("a"), 7, place(2, 10, 1)),
        ChangeVerdict::Reload(_)
    ));
    assert_eq!(tables.judge_progress(7, 0, place(2, 10, 2)).unwrap_err().len(), 2);
    assert_eq!(tables.outdated_tables(Epoch(2)).len(), 2);
    // Loading one in the new epoch requires the other to be loaded again.
    let new = start(2, 10, 7, XidWindow::default());
    let (records, checkpoint) = adopted(&mut tables, &new, &schema("a", 1, TableState::Live, 0), 0);
    assert_eq!((records.len(), checkpoint.epoch), (2, Epoch(2)));
    assert_eq!(tables.tables_to_load().map(|(t, _)| t.as_str()).collect::<Vec<_>>(), ["b"]);
    // What is left of the old epoch in the stream is skipped.
    assert_eq!(tables.judge_change(&token("a"), 8, place(1, 999, 1)), ChangeVerdict::Skip);
}

#[test]
fn gaps_are_noticed_only_if_something_was_missed() {
    let mut tables = tables(&["a"]);
    let (_, checkpoint) = load(&mut tables, "a", 100, 5);
    let extent = |first_seq, last_seq| StreamExtent { first_seq, last_seq, created: 0 };
    assert!(tables.find_gaps(extent(1, 9)).is_empty());
    assert!(tables.find_gaps(extent(6, 9)).is_empty(), "all before ours may go");
    assert_eq!(tables.find_gaps(extent(7, 9)).len(), 1);
    assert_eq!(tables.find_gaps(extent(1, 4)).len(), 1, "the stream is behind us");
    assert_eq!(tables.find_gaps(StreamExtent { created: 1, ..extent(1, 9) }).len(), 1);
    // Read up to 8, but not known to be without a gap since 5.
    tables.advance_to(Checkpoint { seq: 8, ..checkpoint });
    assert_eq!(tables.find_gaps(extent(8, 9)).len(), 1);
    tables.mark_verified(8);
    assert!(tables.find_gaps(extent(9, 9)).is_empty());
}

#[test]
fn loading_one_table_verifies_nothing_of_another() {
    let mut tables = tables(&["a", "b"]);
    let (_, checkpoint) = load(&mut tables, "a", 100, 5);
    tables.mark_verified(6);
    tables.advance_to(Checkpoint {
        seq: 9,
        verified_seq: 6,
        position: Position::new(Lsn(150), 1),
        ..checkpoint
    });
    load(&mut tables, "b", 120, 7);
    let extent = |first_seq| StreamExtent { first_seq, last_seq: 20, created: 0 };
    assert!(tables.find_gaps(extent(7)).is_empty());
    // 7 may have gone before it was read.
    let gaps: Vec<Token> =
        tables.find_gaps(extent(8)).into_iter().map(|(token, _)| token).collect();
    assert_eq!(gaps, [token("a")]);
    // What was applied is not applied again.
    assert_eq!(tables.judge_change(&token("a"), 8, place(1, 150, 1)), ChangeVerdict::Skip);
}

#[test]
fn tables_that_are_not_wanted_any_more_are_forgotten() {
    let mut all = tables(&["a", "b"]);
    load(&mut all, "a", 100, 5);
    let (records, checkpoint) = load(&mut all, "b", 110, 6);
    let (_, forgotten) =
        Tables::new(&[token("b")], StoredState { checkpoint: Some(checkpoint), tables: records });
    assert_eq!(forgotten, [token("a")]);
}

#[test]
fn migrations_go_by_place() {
    let from = schema("a", 1, TableState::Live, 0);
    let mut to = from.clone();
    to.columns = vec![column("id", 1, "integer", true), column("remark", 2, "text", false)];
    to.columns.push(column("note", 3, "text", false));
    let Migration::Steps(steps) = plan_migration(&from, &to) else { panic!() };
    assert_eq!(
        steps,
        [
            MigrationStep::Rename { from: "note".into(), to: "_walgate_0".into() },
            MigrationStep::Rename { from: "_walgate_0".into(), to: "remark".into() },
            MigrationStep::Add(column("note", 3, "text", false)),
        ]
    );
    let Migration::Steps(steps) = plan_migration(&to, &from) else { panic!() };
    assert_eq!(steps[0], MigrationStep::Drop { name: "note".into() });
    to.columns[1].type_name = "integer".into();
    assert!(matches!(plan_migration(&from, &to), Migration::Reload(_)));
    let mut keyless = from.clone();
    keyless.key.clear();
    assert!(matches!(plan_migration(&from, &keyless), Migration::Reload(_)));
    let guest = walgate_wire::Guest { name: "a".into(), version: "2".into(), sha256: "".into() };
    let guested = Schema { guest: Some(guest), ..from.clone() };
    assert_eq!(plan_migration(&from, &guested), Migration::Steps(vec![]));
    let mut based = from.clone();
    based.columns[1].base_oid = Some(1184);
    assert!(matches!(plan_migration(&from, &based), Migration::Reload(_)));
}

/// One change of the model: transaction number, ordinal, table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Made {
    transaction: u64,
    ordinal: u32,
    table: usize,
}

#[derive(Clone, Debug)]
enum Message {
    ChangeBatch(Vec<Made>),
    Progress(u64),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn lsn_of(transaction: u64) -> u64 {
    1000 + 10 * transaction
}

/// Each transaction's changes to tables, in order; one message for a run of one table's changes.
fn stream(transactions: &[Vec<usize>]) -> Vec<Message> {
    let mut messages = Vec::new();
    for (transaction, touched) in transactions.iter().enumerate() {
        let transaction = transaction as u64;
        let made =
            touched.iter().zip(1..).map(|(&table, ordinal)| Made { transaction, ordinal, table });
        let made: Vec<Made> = made.collect();
        messages.extend(
            made.chunk_by(|a, b| a.table == b.table).map(|run| Message::ChangeBatch(run.to_vec())),
        );
        messages.push(Message::Progress(transaction));
    }
    messages
}

/// A consumer that keeps, instead of rows, how often each change was applied to its table.
struct Model {
    tables: Tables,
    stored: StoredState,
    committed: BTreeMap<Made, u32>,
}

impl Model {
    fn restart(&mut self) {
        let tokens = NAMES.map(token);
        self.tables = Tables::new(&tokens, self.stored.clone()).0;
        for name in NAMES {
            self.tables.on_schema(schema(name, 1, TableState::Live, 0));
        }
    }

    fn store(&mut self, records: Vec<TableRecord>, checkpoint: Checkpoint) {
        for record in records {
            self.stored.tables.retain(|r| r.token != record.token);
            self.stored.tables.push(record);
        }
        self.stored.checkpoint = Some(checkpoint);
    }

    /// A snapshot with its watermark at transaction `low`, that sees all before `high` but for
    /// `hidden`.
    fn load(
        &mut self,
        messages: &[Message],
        table: usize,
        low: u64,
        high: u64,
        hidden: &[u64],
        lag: usize,
    ) {
        let sees = |t: u64| t < low || (t < high && !hidden.contains(&t));
        let first_at_or_above = |m: &Message| match m {
            Message::ChangeBatch(made) => made[0].transaction >= low,
            Message::Progress(t) => *t >= low,
        };
        let at = messages.iter().position(first_at_or_above).unwrap_or(messages.len());
        let hidden = hidden.iter().filter(|&&t| t >= low && t < high).map(|t| 100 + t).collect();
        let window = XidWindow { xmin: 100 + low, xmax: 100 + high, xip: hidden };
        let start = start(1, lsn_of(low), at.saturating_sub(lag) as u64, window);
        let schema = schema(NAMES[table], 1, TableState::Live, 0);
        let (records, checkpoint) = adopted(&mut self.tables, &start, &schema, i64::MAX / 2);
        self.committed.retain(|made, _| made.table != table);
        for message in messages {
            if let Message::ChangeBatch(made) = message {
                let seen = made.iter().filter(|made| made.table == table && sees(made.transaction));
                self.committed.extend(seen.map(|made| (*made, 1)));
            }
        }
        self.store(records, checkpoint);
    }

    /// Reads up to `count` messages; then either stops in order or is killed.
    fn read(&mut self, messages: &[Message], count: usize) {
        let Some(next) = self.tables.next_sequence() else { return };
        let mut working = self.committed.clone();
        for (index, message) in messages.iter().enumerate().skip(next as usize - 1).take(count) {
            let seq = index as u64 + 1;
            match message {
                Message::Progress(t) => {
                    let checkpoint =
                        self.tables.judge_progress(seq, 0, place(1, lsn_of(*t), 9)).unwrap();
                    self.tables.advance_to(checkpoint);
                    self.committed = working.clone();
                    self.stored.checkpoint = Some(checkpoint);
                }
                Message::ChangeBatch(made) => {
                    let last = made[made.len() - 1];
                    let place = place(1, lsn_of(last.transaction), last.ordinal);
                    let verdict = self.tables.judge_change(&token(NAMES[last.table]), seq, place);
                    let ChangeVerdict::Apply(filter) = verdict else { continue };
                    for made in made.iter().filter(|made| filter.keeps(&change(made))) {
                        *working.entry(*made).or_default() += 1;
                    }
                }
            }
        }
        self.restart();
    }
}

fn change(made: &Made) -> Change<'static> {
    Change {
        position: Position::new(Lsn(lsn_of(made.transaction)), made.ordinal),
        xid: 100 + made.transaction as u32,
        at: 0,
        op: Op::Truncate,
    }
}

#[derive(Clone, Debug)]
enum Act {
    Load { table: usize, low: u64, width: u64, hidden: Vec<u64>, lag: usize },
    Read(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..3usize, 0..12u64, 0..6u64, prop::collection::vec(0..18u64, 0..3), 0..4usize).prop_map(
            |(table, low, width, hidden, lag)| Act::Load { table, low, width, hidden, lag }
        ),
        (0..30usize).prop_map(Act::Read),
    ]
}

proptest! {
    /// Whatever is loaded when and however often it is killed: at the end each table has each
    /// change once.
    #[test]
    fn every_change_is_applied_exactly_once(
        transactions in prop::collection::vec(prop::collection::vec(0..3usize, 1..6), 12),
        acts in prop::collection::vec(act(), 1..12),
    ) {
        let messages = stream(&transactions);
        let mut model = Model {
            tables: Tables::default(),
            stored: StoredState::default(),
            committed: BTreeMap::new(),
        };
        model.restart();
        for act in acts {
            match act {
                Act::Load { table, low, width, hidden, lag } => {
                    model.load(&messages, table, low, (low + width).min(12), &hidden, lag);
                }
                Act::Read(count) => model.read(&messages, count),
            }
        }
        for (table, name) in NAMES.iter().enumerate() {
            if model.tables.record(&token(name)).is_none() {
                model.load(&messages, table, 3, 5, &[4], 1);
            }
        }
        model.read(&messages, usize::MAX);
        let expected: BTreeMap<Made, u32> = messages
            .iter()
            .flat_map(|m| if let Message::ChangeBatch(made) = m { made.clone() } else { vec![] })
            .map(|made| (made, 1))
            .collect();
        prop_assert_eq!(model.committed, expected);
    }
}
