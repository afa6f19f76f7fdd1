//! Tests of the filter's semantics, row by row of its table, and against a model of a replica.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use proptest::prelude::*;
use walgate_wire::Identity;

use super::*;
use crate::guest::{
    exec::images::collect_images,
    plan::PlanAnswer,
    test_support::{Text, change, copied, insert, output, plan, reads, show, texts},
};

const ROW: &[Text<'static>] = &[Some("1"), Some("x"), Some("y")];
const BEFORE: &[Text<'static>] = &[Some("1"), Some("w"), Some("y")];
const KEY: &[Text<'static>] = &[Some("0"), None, None];

fn filter() -> PlanAnswer {
    PlanAnswer { reads: reads(&["a"]), filters: true, ..PlanAnswer::default() }
}

/// The published batch if the images have these verdicts.
fn left(answer: PlanAnswer, batch: RowBatch, verdicts_of: &[ImageVerdict]) -> (Vec<String>, u64) {
    let plan = plan(&batch.table.clone(), answer);
    let shown = collect_images(&batch, &plan.reads_values);
    let mut verdicts = ImageVerdicts::new(&plan, shown.len());
    assert_eq!(verdicts.by_image.len(), verdicts_of.len(), "{shown:?}");
    verdicts.by_image.copy_from_slice(verdicts_of);
    let applied = apply_verdicts(&plan, batch, &shown, &verdicts);
    assert_eq!(applied.batch.cells.len() % plan.cells.len(), 0);
    (show(&applied.batch), applied.dropped)
}

fn one(
    identity: Identity,
    op: Op,
    new: Option<&[Text<'_>]>,
    old: Option<(&[Text<'_>], bool)>,
) -> RowBatch {
    let mut batch = RowBatch::new(texts(identity));
    change(&mut batch, op, new, old);
    batch
}

use ImageVerdict::{Drop, Failed, Keep};

#[test]
fn inserts() {
    let batch = || one(Identity::Default, Op::Insert, Some(ROW), None);
    assert_eq!(left(filter(), batch(), &[Keep]), (vec!["+ 1,x,y".into()], 0));
    assert_eq!(left(filter(), batch(), &[Drop]), (vec![], 1));
    assert_eq!(left(filter(), batch(), &[Failed]), (vec![], 1));
}

#[test]
fn updates_with_the_whole_old_row() {
    let batch = || one(Identity::Full, Op::Update, Some(ROW), Some((BEFORE, false)));
    let left = |old, new| left(filter(), batch(), &[old, new]);
    assert_eq!(left(Keep, Keep), (vec!["~ 1,w,y > 1,x,y".into()], 0));
    assert_eq!(left(Keep, Drop), (vec!["- 1,w,y".into()], 1));
    assert_eq!(left(Drop, Keep), (vec!["+ 1,x,y".into()], 0));
    assert_eq!(left(Drop, Drop), (vec![], 1));
    assert_eq!(left(Drop, Failed), (vec![], 1));
    assert_eq!(left(Keep, Failed), (vec!["- 1,w,y".into()], 1), "as it left before");
    // Consumers may have the row: it is named by its key.
    assert_eq!(left(Failed, Keep), (vec!["~ [1,·,·] > 1,x,y".into()], 0));
    for new in [Drop, Failed] {
        assert_eq!(left(Failed, new), (vec!["- [1,·,·]".into()], 1));
    }
}

/// Nothing names a row of which the guest did not say what it left as: it is taken for not there.
#[test]
fn a_row_that_only_the_guest_can_name() {
    let keyless = || {
        let mut table = (*texts(Identity::Full)).clone();
        table.columns[0].key = false;
        table.schema.columns[0].key = false;
        table.schema.key.clear();
        (filter(), Arc::new(table))
    };
    let rekeyed = || {
        let answer = PlanAnswer { replaces: vec![output("id", "")], ..filter() };
        (answer, texts(Identity::Full))
    };
    for ((answer, table), name) in [(keyless(), "keyless"), (rekeyed(), "rekeyed")] {
        let left = |op, verdicts_of: &[ImageVerdict]| {
            let mut batch = RowBatch::new(table.clone());
            let new = (op == Op::Update).then_some(ROW);
            change(&mut batch, op, new, Some((BEFORE, false)));
            left(answer.clone(), batch, verdicts_of)
        };
        let update = |old, new| left(Op::Update, &[old, new]);
        assert_eq!(update(Keep, Failed), (vec!["- 1,w,y".into()], 1), "{name}");
        assert_eq!(update(Failed, Keep), (vec!["+ 1,x,y".into()], 0), "{name}");
        for (old, new) in [(Drop, Failed), (Failed, Drop), (Failed, Failed)] {
            assert_eq!(update(old, new), (vec![], 1), "{name}");
        }
        assert_eq!(left(Op::Delete, &[Keep]), (vec!["- 1,w,y".into()], 0), "{name}");
        assert_eq!(left(Op::Delete, &[Failed]), (vec![], 1), "{name}");
    }
}

#[test]
fn updates_of_the_key_with_the_whole_old_row() {
    let before: &[Text<'_>] = &[Some("0"), Some("w"), Some("y")];
    let batch = || one(Identity::Full, Op::Update, Some(ROW), Some((before, false)));
    let left = |old, new| left(filter(), batch(), &[old, new]);
    assert_eq!(left(Failed, Keep), (vec!["~ [0,·,·] > 1,x,y".into()], 0));
    assert_eq!(left(Failed, Failed), (vec!["- [0,·,·]".into()], 1));
    assert_eq!(left(Keep, Failed), (vec!["- 0,w,y".into()], 1));
}

#[test]
fn updates_without_the_old_row() {
    let batch = || one(Identity::Default, Op::Update, Some(ROW), None);
    assert_eq!(left(filter(), batch(), &[Keep]), (vec!["~  > 1,x,y".into()], 0));
    assert_eq!(left(filter(), batch(), &[Drop]), (vec!["- [1,·,·]".into()], 1));
    assert_eq!(left(filter(), batch(), &[Failed]), (vec!["- [1,·,·]".into()], 1));
}

#[test]
fn updates_of_the_key() {
    let batch = || one(Identity::Default, Op::Update, Some(ROW), Some((KEY, true)));
    let left = |new| left(filter(), batch(), &[Keep, new]);
    assert_eq!(left(Keep), (vec!["~ [0,·,·] > 1,x,y".into()], 0));
    assert_eq!(left(Drop), (vec!["- [0,·,·]".into()], 1));
    assert_eq!(left(Failed), (vec!["- [0,·,·]".into()], 1));
}

#[test]
fn deletes_and_truncates() {
    let full = || one(Identity::Full, Op::Delete, None, Some((ROW, false)));
    assert_eq!(left(filter(), full(), &[Keep]), (vec!["- 1,x,y".into()], 0));
    assert_eq!(left(filter(), full(), &[Drop]), (vec![], 1));
    assert_eq!(left(filter(), full(), &[Failed]), (vec!["- [1,·,·]".into()], 0));
    let key = one(Identity::Default, Op::Delete, None, Some((KEY, true)));
    assert_eq!(left(filter(), key, &[]), (vec!["- [0,·,·]".into()], 0));
    let truncate = one(Identity::Default, Op::Truncate, None, None);
    assert_eq!(left(filter(), truncate, &[]), (vec!["0".into()], 0));
}

#[test]
fn rows_that_cannot_be_shown_count_as_dropped() {
    let unchanged: &[Text<'_>] = &[Some("1"), Some("?"), Some("y")];
    let batch = one(Identity::Default, Op::Update, Some(unchanged), None);
    assert_eq!(left(filter(), batch, &[]), (vec!["- [1,·,·]".into()], 1));
    let elsewhere: &[Text<'_>] = &[Some("1"), Some("x"), Some("?")];
    let batch = one(Identity::Default, Op::Update, Some(elsewhere), None);
    assert_eq!(left(filter(), batch, &[Keep]), (vec!["~  > 1,x,?".into()], 0));
}

#[test]
fn an_insert_never_hides_that_a_cell_is_unknown() {
    let old: &[Text<'_>] = &[Some("1"), Some("w"), None];
    let new: &[Text<'_>] = &[Some("1"), Some("x"), Some("?")];
    let batch = one(Identity::Full, Op::Update, Some(new), Some((old, false)));
    assert_eq!(left(filter(), batch, &[Drop, Keep]), (vec!["~  > 1,x,?".into()], 0));
}

#[test]
fn columns_are_hidden_in_all_rows() {
    let answer = || PlanAnswer { hides: vec!["a".into()], ..filter() };
    let mut batch = RowBatch::new(texts(Identity::Full));
    insert(&mut batch, ROW);
    change(&mut batch, Op::Update, Some(ROW), Some((BEFORE, false)));
    change(&mut batch, Op::Delete, None, Some((ROW, false)));
    let (shown, _) = left(answer(), batch, &[Keep; 4]);
    assert_eq!(shown, ["+ 1,y", "~ 1,y > 1,y", "- 1,y"]);
    let row = || vec![Some(&b"1"[..]), Some(b"x"), None];
    let copied = copied(&texts(Identity::Default), &[row(), row()]);
    assert_eq!(left(answer(), copied, &[Keep, Drop]), (vec!["1,·".into()], 1));
}

#[test]
fn a_replaced_key_is_never_published_as_it_was() {
    let answer = || PlanAnswer { replaces: vec![output("id", "")], ..filter() };
    let nothing = (vec![], 1);
    let delete = one(Identity::Full, Op::Delete, None, Some((KEY, true)));
    assert_eq!(left(answer(), delete, &[]), nothing);
    let update = one(Identity::Full, Op::Update, Some(ROW), Some((KEY, true)));
    assert_eq!(left(answer(), update, &[Keep, Keep]), nothing);
    let update = one(Identity::Full, Op::Update, Some(ROW), None);
    assert_eq!(left(answer(), update, &[Drop]), nothing);
}

/// A write on a table: keys, and the verdict of the guest on the new row.
#[derive(Clone, Copy, Debug)]
enum Write {
    Insert(u8, ImageVerdict),
    Update(u8, ImageVerdict),
    Move(u8, u8, ImageVerdict),
    Delete(u8),
    Truncate,
}

fn write() -> impl Strategy<Value = Write> {
    let verdict = || prop_oneof![2 => Just(Keep), 1 => Just(Drop), 1 => Just(Failed)];
    prop_oneof![
        3 => (0u8..6, verdict()).prop_map(|(k, verdict)| Write::Insert(k, verdict)),
        3 => (0u8..6, verdict()).prop_map(|(k, verdict)| Write::Update(k, verdict)),
        1 => (0u8..6, 0u8..6, verdict()).prop_map(|(k, l, verdict)| Write::Move(k, l, verdict)),
        1 => (0u8..6).prop_map(Write::Delete),
        1 => Just(Write::Truncate),
    ]
}

/// Replays writes on a source. Returns the batch, whose rows hold their verdicts, and the filtered
/// source.
fn replay(identity: Identity, writes: &[Write]) -> (RowBatch, BTreeMap<String, String>) {
    let full = identity == Identity::Full;
    let mut source: BTreeMap<String, String> = BTreeMap::new();
    let mut batch = RowBatch::new(texts(identity));
    for (step, write) in writes.iter().enumerate() {
        let value = |verdict: ImageVerdict| format!("{verdict:?} {step}");
        let mut update = |from: u8, to: u8, verdict: ImageVerdict| {
            let (from, to) = (from.to_string(), to.to_string());
            let Some(before) = source.remove(&from) else { return };
            if from != to && source.contains_key(&to) {
                source.insert(from, before);
                return;
            }
            let after = value(verdict);
            let new: &[Text<'_>] = &[Some(&to), Some(&after), Some("-")];
            let old_full: &[Text<'_>] = &[Some(&from), Some(&before), Some("-")];
            let old_key: &[Text<'_>] = &[Some(&from), None, None];
            let old = match (full, from != to) {
                (true, _) => Some((old_full, false)),
                (false, true) => Some((old_key, true)),
                (false, false) => None,
            };
            change(&mut batch, Op::Update, Some(new), old);
            source.insert(to, after);
        };
        match *write {
            Write::Update(key, verdict) => update(key, key, verdict),
            Write::Move(from, to, verdict) => update(from, to, verdict),
            Write::Insert(key, verdict) => {
                let (key, value) = (key.to_string(), value(verdict));
                if let Entry::Vacant(entry) = source.entry(key.clone()) {
                    insert(&mut batch, &[Some(&key), Some(&value), Some("-")]);
                    entry.insert(value);
                }
            }
            Write::Delete(key) => {
                let key = key.to_string();
                if let Some(before) = source.remove(&key) {
                    let old: &[Text<'_>] = &[Some(&key), Some(&before), Some("-")];
                    let old_key: &[Text<'_>] = &[Some(&key), None, None];
                    let old = if full { (old, false) } else { (old_key, true) };
                    change(&mut batch, Op::Delete, None, Some(old));
                }
            }
            Write::Truncate => {
                source.clear();
                change(&mut batch, Op::Truncate, None, None);
            }
        }
    }
    source.retain(|_, value| value.starts_with("Keep"));
    (batch, source)
}

/// The rows of a consumer at the end: it upserts by key, as PROTOCOL.md requires.
fn replica(batch: &RowBatch) -> BTreeMap<String, String> {
    let text = |cell: Cell| {
        String::from_utf8(batch.cell_bytes(cell).unwrap_or_default().to_vec()).unwrap()
    };
    let mut rows = BTreeMap::new();
    for change in &batch.changes {
        if let Some(old) = batch.old_row(change) {
            rows.remove(&text(old[0]));
        }
        match (change.op, batch.new_row(change)) {
            (Op::Truncate, _) => rows.clear(),
            (_, Some(new)) => {
                rows.insert(text(new[0]), text(new[1]));
            }
            _ => {}
        }
    }
    rows
}

proptest! {
    #[test]
    fn a_replica_is_the_filtered_source(
        writes in prop::collection::vec(write(), 0..40),
        full: bool,
    ) {
        let identity = if full { Identity::Full } else { Identity::Default };
        let (batch, expected) = replay(identity, &writes);
        let plan = plan(&batch.table.clone(), filter());
        let shown = collect_images(&batch, &plan.reads_values);
        let mut verdicts = ImageVerdicts::new(&plan, shown.len());
        for (verdict, image) in verdicts.by_image.iter_mut().zip(&shown) {
            let value = batch.row_at(image.first_cell)[1];
            let begins = |word: &[u8]| batch.cell_bytes(value).is_some_and(|v| v.starts_with(word));
            *verdict = if begins(b"Drop") { Drop } else if begins(b"Failed") { Failed } else { Keep };
        }
        let applied = apply_verdicts(&plan, batch, &shown, &verdicts);
        prop_assert_eq!(replica(&applied.batch), expected);
    }
}
