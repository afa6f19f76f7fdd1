//! Tests of guests that run: what a good one does, and that no misbehaviour lets a row through or stops the
//! others.

use std::{collections::BTreeMap, sync::OnceLock};

use walgate_wire::Identity;

use super::{
    plan::{Answer, Output},
    programs::Program,
    test_support::{change, copied, insert, output, reads, show, texts},
    *,
};
use crate::{
    batch::{Op, RowBatch},
    pack::Rendered,
    source::catalog::TableVersion,
};

/// One for all tests, as in the gateway; small limits.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(limits(), None).unwrap())
}

fn limits() -> Limits {
    Limits {
        memory_bytes: 4 << 20,
        batch: Duration::from_millis(50),
        output_bytes: 1 << 20,
        ..Limits::default()
    }
}

fn answer() -> Answer {
    Answer { reads: reads(&["a"]), filters: true, ..Answer::default() }
}

fn try_bind(program: &Program) -> Result<Bound, GuestError> {
    engine().load(&program.wasm())?.bind(texts(Identity::Default), &BTreeMap::new())
}

fn bind(program: &Program) -> Bound {
    try_bind(program).unwrap_or_else(|error| panic!("{error}"))
}

/// Inserts with these values of column `a`, keys counting up.
fn inserts(values: &[&str]) -> RowBatch {
    let mut batch = RowBatch::new(texts(Identity::Default));
    for (index, value) in values.iter().enumerate() {
        insert(&mut batch, &[Some(&index.to_string()), Some(value), None]);
    }
    batch
}

fn run(bound: &Bound, batch: RowBatch, on_error: OnGuestError) -> Result<Outcome, GuestFailure> {
    bound.run(batch, &mut Rendered::default(), on_error)
}

/// The guest fails with this message on any batch, whatever the policy: no row leaves.
fn always_fails(program: &Program) -> String {
    let bound = bind(program);
    let halted = run(&bound, inserts(&["x"; 3]), OnGuestError::Halt).unwrap_err().to_string();
    let outcome = run(&bound, inserts(&["x"; 3]), OnGuestError::Drop).unwrap();
    assert_eq!((show(&outcome.batch), outcome.failed.len(), outcome.dropped), (vec![], 3, 3));
    a_good_guest_goes_on();
    halted
}

fn a_good_guest_goes_on() {
    let bound = bind(&Program::keeping(answer()));
    let outcome = run(&bound, inserts(&["x", "y"]), OnGuestError::Halt).unwrap();
    assert_eq!(show(&outcome.batch), ["+ 0,x,·", "+ 1,y,·"]);
}

#[test]
fn a_good_guest_keeps_rows() {
    a_good_guest_goes_on();
    let module = engine().load(&Program::keeping(answer()).wasm()).unwrap();
    let description = module.description();
    assert_eq!((&*description.name, &*description.version), ("test", "0.1.0"));
    assert_eq!(description.sha256.len(), 64);
    let bound = module.bind(texts(Identity::Default), &BTreeMap::new()).unwrap();
    assert_eq!(bound.output().schema.guest.as_ref(), Some(description));
    assert_eq!(bound.needs_values(), [0, 1, 2]);
}

#[test]
fn a_filter_drops_and_patches() {
    let answer = Answer {
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
    let replaced = Answer { adds: vec![], ..answer };
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
fn a_trap_says_why() {
    let message = always_fails(&Program::process(answer(), "(unreachable)"));
    let expected = "guest test fails on change 0/10/1 of public.t: its process trapped: wasm \
                    `unreachable` instruction executed; mend the guest, or set on_guest_error of the table";
    assert_eq!(message, expected);
    let message =
        always_fails(&Program::process(answer(), "(i32.load (i32.const -8)) (drop) (unreachable)"));
    assert!(message.contains("out of bounds memory access"), "{message}");
}

#[test]
fn a_panic_is_quoted() {
    let panic = "(call $log (i32.const 3) (i32.const 16) (i32.const 8)) (unreachable)";
    let message = always_fails(&Program::process(answer(), panic));
    assert!(message.contains("executed (it said: it hurts)"), "{message}");
}

#[test]
fn an_endless_loop_is_interrupted() {
    let program = Program::process(answer(), "(loop $ever (br $ever)) (unreachable)");
    let began = std::time::Instant::now();
    let message = always_fails(&program);
    assert!(message.contains("its process took longer than 50 ms"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_endless_loop_in_plan_is_interrupted() {
    let plan = Some("(loop $ever (br $ever)) (unreachable)".to_owned());
    let error = try_bind(&Program { plan, ..Program::keeping(answer()) }).err().unwrap();
    let expected = "its plan took longer than 50 ms; raise guests.batch_ms if that is how long it needs";
    assert_eq!(error.to_string(), expected);
    a_good_guest_goes_on();
}

#[test]
fn memory_is_bounded() {
    let body = "(drop (call $alloc (i32.const 100000000))) (unreachable)";
    let message = always_fails(&Program::process(answer(), body));
    assert!(message.contains("ran out of memory: it asked for 96 MiB, the limit is 4 MiB"), "{message}");
    let more = "(memory $more 1000)".to_owned();
    let error = try_bind(&Program { more, ..Program::keeping(answer()) }).err().unwrap();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[test]
fn a_batch_larger_than_its_memory_is_cut() {
    let bound = bind(&Program::keeping(answer()));
    let large = "x".repeat(3 << 20);
    let outcome = run(&bound, inserts(&[&large, &large]), OnGuestError::Halt).unwrap();
    assert_eq!(outcome.batch.len(), 2, "one by one they fit");
    let larger = "x".repeat(5 << 20);
    let error = run(&bound, inserts(&["x", &larger]), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("change 0/10/2"), "{error}");
    assert!(error.contains("its rows take 6 MiB, more than its memory of 4 MiB"), "{error}");
    let outcome = run(&bound, inserts(&["x", &larger, "y"]), OnGuestError::Drop).unwrap();
    assert_eq!(show(&outcome.batch), ["+ 0,x,·", "+ 2,y,·"]);
}

#[test]
fn garbage_is_refused() {
    for (body, problem) in [
        ("(call $ok (i32.const 0) (i32.const 0))", "does not begin with \"WGD1\""),
        ("(call $ok (i32.const 0) (i32.const 64))", "does not begin with \"WGD1\""),
        ("(call $ok (local.get $in) (local.get $len))", "does not begin with \"WGD1\""),
        ("(call $ok (i32.const 0) (i32.const -1))", "trapped"),
        ("(call $ok (i32.const -8) (i32.const 64))", "trapped"),
        ("(i32.const -8)", "trapped"),
        ("(i32.const 3)", "trapped"),
        (
            "(i32.store offset=4 (local.get $in) (i32.const 1)) (call $keep (local.get $in))",
            "it has 1 rows where",
        ),
        ("(call $result (i32.const 7) (i32.const 0) (i32.const 0))", "trapped"),
    ] {
        let bound = bind(&Program::process(answer(), body));
        let error = run(&bound, inserts(&["x", "y"]), OnGuestError::Halt);
        match error {
            Err(error) => assert!(error.to_string().contains(problem), "{body}: {error}"),
            Ok(outcome) => {
                // Row by row one row is right.
                assert_eq!((problem, outcome.batch.len()), ("it has 1 rows where", 2));
            }
        }
    }
    a_good_guest_goes_on();
}

#[test]
fn an_answer_has_a_size() {
    let body = "(call $ok (i32.const 0) (i32.const 2000000))";
    let more = "(func $grow (drop (memory.grow (i32.const 40)))) (start $grow)".to_owned();
    let message = always_fails(&Program { more, ..Program::process(answer(), body) });
    assert!(message.contains("answered with 2000000 bytes, at most 1048576 are allowed"), "{message}");
}

#[test]
fn an_error_result_is_quoted() {
    let message = always_fails(&Program::process(answer(), "(call $error)"));
    assert!(message.contains("its process answered with an error: it hurts"), "{message}");
}

#[test]
fn a_refused_plan_is_quoted() {
    let plan = Some("(call $error)".to_owned());
    let error = try_bind(&Program { plan, ..Program::keeping(answer()) }).err().unwrap();
    assert_eq!(error.to_string(), "guest test does not work with table public.t: it hurts");
}

#[test]
fn a_plan_that_does_not_fit_is_explained() {
    let plan = Answer { hides: vec!["email".into()], ..answer() };
    let error = try_bind(&Program::keeping(plan)).err().unwrap();
    let expected = "the plan of guest test does not fit table public.t: it hides column email, which the \
                    table does not have; it has id, a, b";
    assert_eq!(error.to_string(), expected);
    let key = Answer { replaces: vec![output("id", "")], ..answer() };
    let error = try_bind(&Program::keeping(key)).err().unwrap();
    assert!(error.to_string().contains("REPLICA IDENTITY FULL"), "{error}");
}

#[test]
fn a_promise_never_to_drop_is_kept() {
    let bound = bind(&Program::deciding(Answer { filters: false, ..answer() }));
    let error = run(&bound, inserts(&["x", "D"]), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("change 0/10/2"), "{error}");
    assert!(error.contains("its plan says that it never drops any"), "{error}");
    let outcome = run(&bound, inserts(&["x", "D"]), OnGuestError::Drop).unwrap();
    assert_eq!((show(&outcome.batch), outcome.failed.len()), (vec!["+ 0,x,·".into()], 1));
}

#[test]
fn an_error_of_a_row_stops_that_row() {
    let bound = bind(&Program::deciding(answer()));
    let values = ["x", "E", "y"];
    let error = run(&bound, inserts(&values), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("change 0/10/2 of public.t: the guest says that it cannot"), "{error}");
    let outcome = run(&bound, inserts(&values), OnGuestError::DeadLetter).unwrap();
    assert_eq!(show(&outcome.batch), ["+ 0,x,·", "+ 2,y,·"]);
    let failed = &outcome.failed[0];
    assert_eq!(failed.index, 1);
    assert_eq!(show(failed.row.as_ref().unwrap()), ["+ 1,E,·"]);
}

#[test]
fn a_value_that_does_not_fit_is_an_error_of_its_row() {
    let not_null = Output { nullable: false, ..output("c", "text") };
    let bound = bind(&Program::deciding(Answer { adds: vec![not_null], ..answer() }));
    let error = run(&bound, inserts(&["x", "N"]), OnGuestError::Halt).unwrap_err().to_string();
    assert!(error.contains("its value for column c (text) is null, but"), "{error}");
    let bound = bind(&Program::deciding(Answer { adds: vec![output("c", "json")], ..answer() }));
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
    assert!(error.contains("fails on change 0/10/1 of public.t: its process trapped"), "{error}");
    let outcome = run(&bound, inserts(&values), OnGuestError::DeadLetter).unwrap();
    let failed: Vec<usize> = outcome.failed.iter().map(|failed| failed.index).collect();
    assert_eq!(failed, [0, 417, 418, 999]);
    assert_eq!((outcome.batch.len(), outcome.dropped), (995, 5));
    assert!(outcome.batch.changes.is_sorted_by_key(|change| change.ordinal));
    assert_eq!(show(outcome.failed[1].row.as_ref().unwrap()), ["+ 417,P,·"]);
    a_good_guest_goes_on();
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
    assert!(error.contains("fails on more than 17 rows of one batch"), "{error}");
}

#[test]
fn old_and_new_rows_stay_together() {
    let table = texts(Identity::Full);
    let module = engine().load(&Program::deciding(answer()).wasm()).unwrap();
    let bound = module.bind(table.clone(), &BTreeMap::new()).unwrap();
    let mut batch = RowBatch::new(table);
    for (key, old, new) in [("1", "x", "y"), ("2", "x", "P"), ("3", "P", "y"), ("4", "D", "y")] {
        let (old, new) = ([Some(key), Some(old), None], [Some(key), Some(new), None]);
        change(&mut batch, Op::Update, Some(&new), Some((&old, false)));
    }
    let outcome = run(&bound, batch, OnGuestError::Drop).unwrap();
    let expected = ["~ 1,x,· > 1,y,·", "- [2,·,·]", "- [3,·,·]", "+ 4,y,·"];
    assert_eq!(show(&outcome.batch), expected);
    assert_eq!(outcome.failed.iter().map(|failed| failed.index).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn logs_are_bounded() {
    let body = "(local $n i32) (loop $more
        (call $log (i32.const 1) (i32.const 0) (i32.const 60000))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $n) (i32.const 200))))
      (call $keep (local.get $in))";
    let bound = bind(&Program::process(answer(), body));
    assert_eq!(run(&bound, inserts(&["x"]), OnGuestError::Halt).unwrap().batch.len(), 1);
}

#[test]
fn a_plan_depends_on_its_table_alone() {
    // Each instance plans once; the second finds what the first left in no memory: time would be needed, or
    // luck. What can differ is simulated by a plan that fails in a fresh instance only after a trap.
    let bound = bind(&Program::deciding(answer()));
    assert_eq!(run(&bound, inserts(&["x"]), OnGuestError::Halt).unwrap().batch.len(), 1);
    let other: std::sync::Arc<TableVersion> =
        test_support::table(&[("id", crate::source::catalog::Type::base(23))], Identity::Default);
    let error = bound
        .run(RowBatch::new(other), &mut Rendered::default(), OnGuestError::Halt)
        .unwrap_err();
    assert!(error.to_string().contains("does not fit what its guest was bound to"), "{error}");
}

#[test]
fn compiled_code_is_cached() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = Program::keeping(answer()).wasm();
    for _ in 0..2 {
        let engine = Engine::new(limits(), Some(folder.path())).unwrap();
        engine.load(&wasm).unwrap();
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_some());
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
