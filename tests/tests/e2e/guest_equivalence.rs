//! Any filter on any workload, without servers. The gateway's host runs batches of changes through
//! the guest as wasm. The result has to equal the native function, applied to the source's final
//! rows.
//!
//! The consumer here is a map by key, which applies bodies as they are published. Rounds are
//! numbered; the number is the seed.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use random_misbehaviour::random_misbehaviour;
use walgate_guest::{
    Table,
    test::{Change as Told, Guest, Outcome, Value as Shown},
};
use walgate_host::{
    config::GuestsConfig,
    encode::TablePacker,
    guest::{BoundGuest, Engine, Limits, Module, OnGuestError},
    rows::{
        Binary, ColumnType, Rendered, TableVersion, Type,
        batch::{Cell, Change, Op, RowBatch, TxnMark},
    },
};
use walgate_tests::site::guest_bytes;
use walgate_wire::{
    Caps, ChangeWriter, Column, Identity, Lsn, Op as Sent, Schema, TableName, TableState, Value,
    decode_changes,
};

const ROUNDS: u64 = 400;
const CHANGES_MAX: usize = 120;
/// Few keys, so that deleted keys come back.
const KEYS: i64 = 25;
/// Name, type and OID. The first column is the key, the last is hidden.
const COLUMNS: [(&str, &str, u32); 4] =
    [("id", "bigint", 20), ("n", "integer", 23), ("t", "text", 25), ("secret", "text", 25)];

#[derive(Clone, Debug, PartialEq)]
struct Source {
    n: Option<i32>,
    t: Option<String>,
}

/// A row as consumers see it: n, t and total.
type Copied = (Option<i64>, Option<String>, Option<i64>);

fn table(full: bool) -> Arc<TableVersion> {
    let name: TableName = "public.t".parse().unwrap();
    let identity = if full { Identity::Full } else { Identity::Default };
    let column = |(&(name, type_name, oid), attnum): (&(&str, &str, u32), i16)| Column {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        oid,
        base_oid: None,
        made_of: None,
        attnum,
        nullable: attnum > 1,
        key: attnum == 1,
    };
    let read = |&(name, _, oid): &(&str, &str, u32)| ColumnType {
        oid,
        typmod: -1,
        ty: Type::base(oid),
        binary: Binary::Yes,
        key: name == "id",
    };
    let schema = Schema {
        table: name.to_string(),
        token: name.token(),
        relid: None,
        revision: 1,
        state: TableState::Live,
        key: vec!["id".to_owned()],
        identity,
        old: if full { (0..4).collect() } else { vec![0] },
        guest: None,
        lsn: Lsn(0),
        reason: None,
        columns: COLUMNS.iter().zip(1..).map(column).collect(),
    };
    let columns = COLUMNS.iter().map(read).collect();
    Arc::new(TableVersion { token: name.token(), name, relid: 1, schema, columns })
}

/// Parameters of the guest: which shares of rows it keeps, fails on and redacts.
fn random_parameters(rng: &mut StdRng) -> BTreeMap<String, String> {
    let of = rng.random_range(1..12);
    let mut parameters = BTreeMap::from([("of".to_owned(), of.to_string())]);
    for name in ["kept_below", "masked_below", "blanked_below"] {
        parameters.insert(name.to_owned(), rng.random_range(0..=of).to_string());
    }
    let failed = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..=of / 3) };
    parameters.insert("failed_below".to_owned(), failed.to_string());
    if rng.random() {
        parameters.insert("null_leaves".to_owned(), rng.random::<bool>().to_string());
    }
    if rng.random_bool(0.3) {
        parameters.insert("longest".to_owned(), rng.random_range(0..8).to_string());
    }
    parameters
}

/// The source, and the batches of its changes.
struct Workload {
    rng: StdRng,
    full: bool,
    rows: BTreeMap<i64, Source>,
    batch: RowBatch,
    lsn: u64,
    ordinal: u32,
}

impl Workload {
    fn random_row(&mut self) -> Source {
        let n = self.rng.random_bool(0.9).then(|| self.rng.random_range(-40..40));
        let text = ["", "a", "grün", "ünter", "longer than others", "\u{1F980} crab"];
        let t =
            self.rng.random_bool(0.8).then(|| text[self.rng.random_range(0..text.len())].into());
        Source { n, t }
    }

    fn push_row(&mut self, key: i64, row: Option<&Source>) -> u32 {
        let RowBatch { bytes, cells, .. } = &mut self.batch;
        let first = cells.len() as u32;
        let mut push = |value: Option<&[u8]>| {
            let start = bytes.len() as u32;
            bytes.extend(value.unwrap_or_default());
            let len = bytes.len() as u32 - start;
            cells.push(value.map_or(Cell::Null, |_| Cell::Binary { start, len }));
        };
        push(Some(&key.to_be_bytes()));
        push(row.and_then(|row| row.n).map(i32::to_be_bytes).as_ref().map(|n| &n[..]));
        push(row.and_then(|row| row.t.as_deref()).map(str::as_bytes));
        push(row.map(|_| &b"secret"[..]));
        first
    }

    fn push(&mut self, op: Op, old: Option<(i64, Option<Source>)>, new: Option<(i64, Source)>) {
        if self.batch.txns.is_empty() || self.rng.random_bool(0.2) {
            (self.lsn, self.ordinal) = (self.lsn + 8, 0);
            self.batch.txns.push(TxnMark { lsn: Lsn(self.lsn), xid: 1, at_micros: 0 });
        }
        self.ordinal += 1;
        let old_is_key = old.as_ref().is_some_and(|(_, row)| row.is_none());
        let old = old.map(|(key, row)| self.push_row(key, row.as_ref()));
        let new = new.map(|(key, row)| self.push_row(key, Some(&row)));
        let txn = self.batch.txns.len() as u32 - 1;
        let ordinal = self.ordinal;
        self.batch.changes.push(Change { op, txn, ordinal, new, old, old_is_key });
    }

    /// A random change at the source, in the form that the replica identity demands.
    fn random_change(&mut self) {
        let key = self.rng.random_range(0..KEYS);
        let what = self.rng.random_range(0..100);
        match (self.rows.get(&key).cloned(), what) {
            _ if what == 0 => {
                self.rows.clear();
                self.push(Op::Truncate, None, None);
            }
            (None, _) => {
                let row = self.random_row();
                self.rows.insert(key, row.clone());
                self.push(Op::Insert, None, Some((key, row)));
            }
            (Some(before), 1..25) => {
                let old = (key, self.full.then_some(before));
                self.rows.remove(&key);
                self.push(Op::Delete, Some(old), None);
            }
            (Some(before), what) => {
                let row = if what < 35 { before.clone() } else { self.random_row() };
                let to = if what < 55 { self.rng.random_range(0..KEYS) } else { key };
                let to = if self.rows.contains_key(&to) { key } else { to };
                let old =
                    (self.full || to != key).then(|| (key, self.full.then(|| before.clone())));
                self.rows.remove(&key);
                self.rows.insert(to, row.clone());
                self.push(Op::Update, old, Some((to, row)));
            }
        }
    }
}

/// A consumer's rows. With whole old rows, it never gets an old row that it does not hold.
#[derive(Default)]
struct Copy {
    rows: BTreeMap<i64, Copied>,
    exact: bool,
}

impl Copy {
    fn remove(&mut self, old: &[Value<'_>]) {
        let was = self.rows.remove(&key(old));
        assert!(was.is_some() || !self.exact, "{old:?} goes and was never there");
        if let Some((n, t, _)) = was.filter(|_| self.exact) {
            // An old row lacks the added column.
            assert_eq!((n, t), (int(&old[1]), text(&old[2])), "the old row is as it left");
        }
    }

    fn apply(&mut self, change: Sent<'_>) {
        match change {
            Sent::Insert { row } => match self.rows.entry(key(&row)) {
                Entry::Occupied(entry) if self.exact => {
                    panic!("{:?} is there already", entry.get())
                }
                Entry::Occupied(mut entry) => drop(entry.insert(copied(&row))),
                Entry::Vacant(entry) => drop(entry.insert(copied(&row))),
            },
            Sent::Update { row, unchanged, old } => {
                assert!(unchanged.is_empty());
                if let Some(old) = old {
                    self.remove(&old);
                }
                self.rows.insert(key(&row), copied(&row));
            }
            Sent::Delete { old } => self.remove(&old),
            Sent::Truncate => self.rows.clear(),
        }
    }
}

fn int(value: &Value<'_>) -> Option<i64> {
    if let Value::Int(int) = value { Some(*int) } else { None }
}

fn text(value: &Value<'_>) -> Option<String> {
    if let Value::Str(text) = value { Some((*text).to_owned()) } else { None }
}

fn key(row: &[Value<'_>]) -> i64 {
    int(&row[0]).expect("a key")
}

fn copied(row: &[Value<'_>]) -> Copied {
    let [_, n, t, total] = row else { panic!("{row:?}") };
    (int(n), text(t), int(total))
}

/// Runs a batch through the guest, packs it and applies the body.
fn publish(bound: &BoundGuest, packer: &TablePacker, batch: RowBatch, copy: &mut Copy) {
    let outcome = bound.run(batch, &mut Rendered::default(), OnGuestError::Drop);
    let batch = outcome.unwrap_or_else(|failure| panic!("{failure}")).batch;
    let mut writer = ChangeWriter::default();
    let all = 0..batch.changes.len();
    packer.pack_changes(&batch, all, &mut writer, &mut Rendered::default()).unwrap();
    let columns = bound.output().schema.columns.len();
    let changes = decode_changes(&writer.out, columns, &Caps::default()).unwrap();
    assert!(changes.is_sorted_by_key(|change| change.position));
    changes.into_iter().for_each(|change| copy.apply(change.op));
}

/// Runs the same function in this process, over the source's rows.
fn run_natively(
    rows: &BTreeMap<i64, Source>,
    parameters: &BTreeMap<String, String>,
) -> BTreeMap<i64, Copied> {
    let described = Table::new("public.t").key("id", "bigint").nullable("n", "integer");
    let described = described.nullable("t", "text").nullable("secret", "text");
    let described = parameters
        .iter()
        .fold(described, |described, (name, value)| described.parameter(name, value));
    let rows: Vec<_> = rows
        .iter()
        .map(|(id, row)| {
            let n = row.n.into();
            let t = row.t.as_deref().into();
            Told::snapshot([("id", (*id).into()), ("n", n), ("t", t), ("secret", "s".into())])
        })
        .collect();
    let seen = Guest::<random_misbehaviour>::new(&described).unwrap().run(&rows);
    let int = |value: &Shown| if let Shown::Integer(int) = value { Some(*int) } else { None };
    let text =
        |value: &Shown| if let Shown::Text(text) = value { Some(text.clone()) } else { None };
    let kept = seen.iter().filter(|seen| matches!(seen, Outcome::Kept(_))).map(Outcome::row);
    kept.map(|row| {
        (int(&row["id"]).unwrap(), (int(&row["n"]), text(&row["t"]), int(&row["total"])))
    })
    .collect()
}

/// Counts over all rounds: a filter that keeps nothing would prove nothing.
#[derive(Debug, Default)]
struct Seen {
    leaves: usize,
    stays: usize,
    redacted: usize,
}

fn run_round(module: &Module, seed: u64, seen: &mut Seen) {
    let mut rng = StdRng::seed_from_u64(seed);
    let parameters = random_parameters(&mut rng);
    let full = rng.random();
    let table = table(full);
    let bound = module.bind(Arc::clone(&table), &parameters).unwrap_or_else(|e| panic!("{e}"));
    let packer = TablePacker::new(bound.output());
    // Consumers may or may not hold a failed row: deletes by key are sent in both cases.
    let exact = full && parameters["failed_below"] == "0";
    let mut copy = Copy { exact, ..Copy::default() };
    let batch = RowBatch::new(Arc::clone(&table));
    let mut work = Workload { rng, full, rows: BTreeMap::new(), batch, lsn: 0, ordinal: 0 };
    for _ in 0..work.rng.random_range(1..=CHANGES_MAX) {
        work.random_change();
        if work.rng.random_bool(0.1) {
            publish(
                &bound,
                &packer,
                std::mem::replace(&mut work.batch, RowBatch::new(Arc::clone(&table))),
                &mut copy,
            );
        }
    }
    publish(&bound, &packer, work.batch, &mut copy);
    let expected = run_natively(&work.rows, &parameters);
    assert_eq!(copy.rows, expected, "round {seed}, full {full}, {parameters:?}; {:?}", work.rows);
    seen.leaves += expected.len();
    seen.stays += work.rows.len() - expected.len();
    let left = |(key, (_, t, _)): (&i64, &Copied)| *t != work.rows[key].t;
    seen.redacted += expected.iter().filter(|row| left(*row)).count();
}

#[test]
fn the_gateway_publishes_what_the_native_guest_returns() {
    let engine = Engine::new(Limits::of(&GuestsConfig::default()), None).unwrap();
    let module = engine.load(&guest_bytes("random_misbehaviour")).unwrap();
    let mut seen = Seen::default();
    (0..ROUNDS).for_each(|seed| run_round(&module, seed, &mut seen));
    let Seen { leaves, stays, redacted } = seen;
    assert!(leaves > 1000 && stays > 1000 && redacted > 500, "{seen:?}");
}
