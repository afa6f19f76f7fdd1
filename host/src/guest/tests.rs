//! Tests of running guests: what a good guest does, and single rows that a guest fails on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use walgate_wire::Identity;

use crate::guest::{
    plan::{OutputColumn, PlanAnswer},
    programs::Program,
    test_support::{change, copied, insert, output, reads, show, texts},
    *,
};
use crate::rows::{
    Rendered, TableVersion,
    batch::{Op, RowBatch},
};

/// One for all tests, as in the gateway; small limits.
pub(super) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(limits(), None).unwrap())
}

fn limits() -> Limits {
    Limits {
        memory_bytes: 4 << 20,
        batch: Duration::from_millis(200),
        output_bytes: 1 << 20,
        ..Limits::of(&crate::config::GuestsConfig::default())
    }
}

pub(super) fn answer() -> PlanAnswer {
    PlanAnswer { reads: reads(&["a"]), filters: true, ..PlanAnswer::default() }
}

pub(super) fn try_bind(program: &Program) -> Result<BoundGuest, GuestError> {
    engine().load(&program.wasm())?.bind(texts(Identity::Default), &BTreeMap::new())
}

pub(super) fn bind(program: &Program) -> BoundGuest {
    try_bind(program).unwrap_or_else(|error| panic!("{error}"))
}

/// Inserts with these values of column `a`, keys counting up.
pub(super) fn inserts(values: &[&str]) -> RowBatch {
    let mut batch = RowBatch::new(texts(Identity::Default));
    for (index, value) in values.iter().enumerate() {
        insert(&mut batch, &[Some(&index.to_string()), Some(value), None]);
    }
    batch
}

pub(super) fn run(
    bound: &BoundGuest,
    batch: RowBatch,
    on_error: OnGuestError,
) -> Result<GuestOutcome, GuestFailure> {
    bound.run(batch, &mut Rendered::default(), on_error)
}

pub(super) fn assert_good_guest_works() {
    let bound = bind(&Program::keeping(answer()));
    let outcome = run(&bound, inserts(&["x", "y"]), OnGuestError::Halt).unwrap();
    assert_eq!(show(&outcome.batch), ["+ 0,x,·", "+ 1,y,·"]);
}

#[test]
fn a_good_guest_keeps_rows() {
    assert_good_guest_works();
    let module = engine().load(&Program::keeping(answer()).wasm()).unwrap();
    let description = module.description();
    assert_eq!((&*description.name, &*description.version), ("test", "0.1.0"));
    assert_eq!(description.sha256.len(), 64);
    let bound = module.bind(texts(Identity::Default), &BTreeMap::new()).unwrap();
    assert_eq!(bound.output().schema.guest.as_ref(), Some(description));
    assert_eq!(bound.needs_values(OnGuestError::Halt), [0, 1, 2]);
}

#[test]
fn a_filter_drops_and_patches() {
    let answer = PlanAnswer {
        hides: vec!["b".into()],
        replaces: vec![output("a", "")],
        adds: vec![output("c", "text")],
        ..answer()
    };
    let bound = bind(&Program::deciding(answer.clone()));
    let outcome = run(&bound, inserts(&["x", "D", "N", "z"]), OnGuestError::Halt).unwrap();
    assert_eq!(show(&outcome.batch), ["+ 0,*x,*x", "+ 2,·,·", "+ 3,*z,*z"]);
    assert_eq!((outcome.dropped, outcome.failed.len()), (1, 0));
    let rows = vec![vec![Some(&b"1"[..]), Some(b"x"), None], vec![Some(b"2"), Some(b"D"), None]];
    let outcome =
        run(&bound, copied(&texts(Identity::Default), &rows), OnGuestError::Halt).unwrap();
    assert_eq!(show(&outcome.batch), ["1,*x,*x"]);
    let replaced = PlanAnswer { adds: vec![], ..answer };
    let bound = bind(&Program::deciding(replaced));
    let outcome = run(&bound, inserts(&["U", "x"]), OnGuestError::Halt).unwrap();
    assert_eq!(show(&outcome.batch), ["+ 0,U", "+ 1,*x"]);
    assert_eq!(run(&bound, inserts(&[]), OnGuestError::Halt).unwrap().batch.len(), 0);
}

#[test]
fn a_change_that_leaves_the_filter_is_a_delete() {
    let bound = bind(&Program::deciding(answer()));
    let mut batch = RowBatch::new(texts(Identity::Default));
    change(&mut batch, Op::Update, Some(&[Some("1"), Some("D"), None]), None);
    change(&mut batch, Op::Delete, None, Some((&[Some("2"), None, None], true)));
    change(&mut batch, Op::Truncate, None, None);
    let outcome = run(&bound, batch, OnGuestError::Halt).unwrap();
    assert_eq!(show(&outcome.batch), ["- [1,·,·]", "- [2,·,·]", "0"]);
}

#[test]
fn a_promise_never_to_drop_is_kept() {
    let bound = bind(&Program::deciding(PlanAnswer { filters: false, ..answer() }));
    let error = run(&bound, inserts(&["x", "D"]), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("change 0/10#2"), "{error}");
    assert!(error.contains("its plan says that it never drops any"), "{error}");
    let outcome = run(&bound, inserts(&["x", "D"]), OnGuestError::Drop).unwrap();
    assert_eq!((show(&outcome.batch), outcome.failed.len()), (vec!["+ 0,x,·".into()], 1));
}

#[test]
fn an_error_of_a_row_stops_that_row() {
    let bound = bind(&Program::deciding(answer()));
    let values = ["x", "E", "y"];
    let error = run(&bound, inserts(&values), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("change 0/10#2 of public.t: the guest says that it cannot"), "{error}");
    let outcome = run(&bound, inserts(&values), OnGuestError::DeadLetter).unwrap();
    assert_eq!(show(&outcome.batch), ["+ 0,x,·", "+ 2,y,·"]);
    let failed = &outcome.failed[0];
    assert_eq!(failed.index, 1);
    assert_eq!(show(failed.row.as_ref().unwrap()), ["+ 1,E,·"]);
}

#[test]
fn a_value_that_does_not_fit_is_an_error_of_its_row() {
    let not_null = OutputColumn { nullable: false, ..output("c", "text") };
    let bound = bind(&Program::deciding(PlanAnswer { adds: vec![not_null], ..answer() }));
    let error = run(&bound, inserts(&["x", "N"]), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("its value for column c (text) is null, but"), "{error}");
    let bound =
        bind(&Program::deciding(PlanAnswer { adds: vec![output("c", "json")], ..answer() }));
    let outcome = run(&bound, inserts(&["x"]), OnGuestError::Drop).unwrap();
    assert_eq!(outcome.failed[0].error, "its value for column c (json) is not JSON");
}

#[test]
fn poison_rows_are_found() {
    let bound = bind(&Program::deciding(answer()));
    let mut values = vec!["x"; 1000];
    values[3] = "D";
    for at in [0, 417, 418, 999] {
        values[at] = "P";
    }
    let error = run(&bound, inserts(&values), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("fails on change 0/10#1 of public.t: its process() trapped"), "{error}");
    let outcome = run(&bound, inserts(&values), OnGuestError::DeadLetter).unwrap();
    let failed: Vec<usize> = outcome.failed.iter().map(|failed| failed.index).collect();
    assert_eq!(failed, [0, 417, 418, 999]);
    assert_eq!((outcome.batch.len(), outcome.dropped), (995, 5));
    assert!(outcome.batch.changes.is_sorted_by_key(|change| change.ordinal));
    assert_eq!(show(outcome.failed[1].row.as_ref().unwrap()), ["+ 417,P,·"]);
    assert_good_guest_works();
}

#[test]
fn a_poison_row_of_a_snapshot_is_found() {
    let bound = bind(&Program::deciding(answer()));
    let rows: Vec<Vec<Option<&[u8]>>> = [&b"x"[..], b"P", b"y", b"L"]
        .iter()
        .map(|value| vec![Some(&b"k"[..]), Some(*value), None])
        .collect();
    let batch = || copied(&texts(Identity::Default), &rows);
    let error = run(&bound, batch(), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("fails on row 1 of a snapshot's batch of public.t"), "{error}");
    let outcome = run(&bound, batch(), OnGuestError::DeadLetter).unwrap();
    assert_eq!(show(&outcome.batch), ["k,x,·", "k,y,·"]);
    assert_eq!(show(outcome.failed[1].row.as_ref().unwrap()), ["k,L,·"]);
}

#[test]
fn a_guest_that_fails_on_everything_stops_its_table() {
    let bound = bind(&Program::deciding(answer()));
    let error = run(&bound, inserts(&["P"; 400]), OnGuestError::Drop).unwrap_err().to_string();
    assert!(error.contains("fails on 17 rows of one batch"), "{error}");
}

#[test]
fn old_and_new_rows_stay_together_until_one_of_them_fails() {
    let table = texts(Identity::Full);
    let module = engine().load(&Program::deciding(answer()).wasm()).unwrap();
    let bound = module.bind(table.clone(), &BTreeMap::new()).unwrap();
    let mut batch = RowBatch::new(table);
    for (key, old, new) in [("1", "x", "y"), ("2", "x", "P"), ("3", "P", "y"), ("4", "D", "y")] {
        let (old, new) = ([Some(key), Some(old), None], [Some(key), Some(new), None]);
        change(&mut batch, Op::Update, Some(&new), Some((&old, false)));
    }
    let outcome = run(&bound, batch, OnGuestError::Drop).unwrap();
    let expected = ["~ 1,x,· > 1,y,·", "- 2,x,·", "~ [3,·,·] > 3,y,·", "+ 4,y,·"];
    assert_eq!(show(&outcome.batch), expected);
    let failed: Vec<_> = outcome.failed.iter().map(|failed| failed.index).collect();
    assert_eq!(failed, [1], "3 was reported when it came, and is deleted now");
}

#[test]
fn a_batch_of_another_table_is_refused() {
    let bound = bind(&Program::deciding(answer()));
    let other: std::sync::Arc<TableVersion> =
        test_support::table(&[("id", crate::rows::Type::base(23))], Identity::Default);
    let error =
        bound.run(RowBatch::new(other), &mut Rendered::default(), OnGuestError::Halt).unwrap_err();
    assert!(error.to_string().contains("does not fit what its guest was bound to"), "{error}");
}

#[test]
fn compiled_code_is_cached() {
    let folder = tempfile::tempdir().unwrap();
    let (wasm, other) = (Program::keeping(answer()).wasm(), Program::deciding(answer()).wasm());
    // Each time as after a restart.
    let hits = |wasm: &[u8]| {
        let engine = Engine::new(limits(), Some(folder.path())).unwrap();
        let bound = engine.load(wasm).unwrap().bind(texts(Identity::Default), &BTreeMap::new());
        let outcome = run(&bound.unwrap(), inserts(&["x"]), OnGuestError::Halt).unwrap();
        assert_eq!(outcome.batch.len(), 1);
        engine.cache_hits()
    };
    assert_eq!([hits(&wasm), hits(&wasm)], [0, 1]);
    assert_eq!([hits(&other), hits(&other), hits(&wasm)], [0, 1, 1], "by what is in the file");
    for damage in [&b"no code"[..], b""] {
        let mut damaged = 0;
        for file in files(folder.path()) {
            fs::write(file, damage).unwrap();
            damaged += 1;
        }
        assert!(damaged > 0);
        assert_eq!([hits(&wasm), hits(&wasm)], [0, 1], "damaged code is compiled again");
    }
}

/// Everything below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_module_may_not_be_larger_than_allowed() {
    let wasm = Program::keeping(answer()).wasm();
    let load =
        |module_bytes| Engine::new(Limits { module_bytes, ..limits() }, None).unwrap().load(&wasm);
    assert!(load(wasm.len()).is_ok());
    let error = load(wasm.len() - 1).err().unwrap();
    assert!(matches!(error, GuestError::ModuleSize { bytes, max } if bytes == max + 1), "{error}");
    assert!(error.to_string().contains("module"), "{error}");
}

#[test]
fn many_tasks_share_a_guest() {
    let bound = bind(&Program::deciding(answer()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let outcome = run(&bound, inserts(&["x", "D", "P"]), OnGuestError::Drop);
                    assert_eq!(show(&outcome.unwrap().batch), ["+ 0,x,·"]);
                }
            });
        }
    });
}

/// A component of the program, encoded against this WIT as a toolchain would.
fn component(program: &Program, sources: &[&str], world: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let packages: Vec<_> = sources
        .iter()
        .enumerate()
        .map(|(index, source)| resolve.push_str(format!("{index}.wit"), source).unwrap())
        .collect();
    let world = resolve.select_world(&packages[packages.len() - 1..], Some(world)).unwrap();
    let mut wasm = program.wasm();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut wasm, &resolve, world, encoding).unwrap();
    wit_component::ComponentEncoder::default().module(&wasm).unwrap().encode().unwrap()
}

const WIT: &str = include_str!("../../../guest-sdk/wit/guest.wit");

#[test]
fn system_interfaces_are_there_in_name_only() {
    const CLOCK: &str = "package wasi:clocks@0.2.3; interface wall-clock { now: func() -> u64; }";
    const WORLD: &str = "package my:toolchain; world all {
        include walgate:guest/guest@1.0.0; import wasi:clocks/wall-clock@0.2.3; }";
    let imports = r#"(import "wasi:clocks/wall-clock@0.2.3" "now" (func $now (result i64)))"#;
    let load = |body: &str| {
        let imports = imports.to_owned();
        let program = Program { imports, ..Program::process(answer(), body) };
        let wasm = component(&program, &[WIT, CLOCK, WORLD], "all");
        let bound = engine().load(&wasm).unwrap().bind(texts(Identity::Default), &BTreeMap::new());
        run(&bound.unwrap(), inserts(&["x"]), OnGuestError::Halt)
    };
    assert_eq!(load("(call $keep (local.get $in))").unwrap().batch.len(), 1);
    let error = load("(drop (call $now)) (call $keep (local.get $in))").unwrap_err().to_string();
    assert!(error.contains("wasi:clocks/wall-clock@0.2.3#now"), "{error}");
}

#[test]
fn a_later_minor_version_is_good_enough() {
    let later = WIT.replace("@1.0.0", "@1.2.0");
    let program = Program { version: "1.2.0", ..Program::keeping(answer()) };
    let module = engine().load(&component(&program, &[&later], "guest")).unwrap();
    let bound = module.bind(texts(Identity::Default), &BTreeMap::new()).unwrap();
    assert_eq!(run(&bound, inserts(&["x"]), OnGuestError::Halt).unwrap().batch.len(), 1);
}
