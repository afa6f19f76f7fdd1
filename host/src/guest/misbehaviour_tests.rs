//! Tests of guests that misbehave, one test each.
//!
//! The message names what happened, no row is published, and a good guest keeps working.

use std::time::Duration;

use crate::guest::{
    OnGuestError,
    plan::PlanAnswer,
    programs::Program,
    test_support::{output, show},
    tests::{answer, assert_good_guest_works, bind, inserts, run, try_bind},
};
use crate::rows::Rendered;

/// The guest fails with this message on any batch, whatever the policy: no row is published.
fn always_fails(program: &Program) -> String {
    let bound = bind(program);
    let halted = run(&bound, inserts(&["x"; 3]), OnGuestError::Halt).unwrap_err().to_string();
    let outcome = run(&bound, inserts(&["x"; 3]), OnGuestError::Drop).unwrap();
    assert_eq!((show(&outcome.batch), outcome.failed.len(), outcome.dropped), (vec![], 3, 3));
    assert_good_guest_works();
    halted
}

#[test]
fn a_trap_says_why() {
    let message = always_fails(&Program::process(answer(), "(unreachable)"));
    let expected = "guest test fails on change 0/10#1 of public.t: its process() trapped: wasm \
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
    assert!(message.contains("its process() took longer than 200 ms"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_endless_loop_in_plan_is_interrupted() {
    let plan = Some("(loop $ever (br $ever)) (unreachable)".to_owned());
    let error = try_bind(&Program { plan, ..Program::keeping(answer()) }).err().unwrap();
    let expected =
        "its plan took longer than 200 ms; raise guests.batch_ms if that is how long it needs";
    assert_eq!(error.to_string(), expected);
    assert_good_guest_works();
}

#[test]
fn memory_is_bounded() {
    let body = "(drop (call $alloc (i32.const 100000000))) (unreachable)";
    let message = always_fails(&Program::process(answer(), body));
    assert!(
        message.contains("ran out of memory: it asked for 96 MiB, the limit is 4 MiB"),
        "{message}"
    );
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
    assert!(error.contains("change 0/10#2"), "{error}");
    assert!(error.contains("its rows take 6 MiB, more than its memory of 4 MiB"), "{error}");
    let outcome = run(&bound, inserts(&["x", &larger, "y"]), OnGuestError::Drop).unwrap();
    assert_eq!(show(&outcome.batch), ["+ 0,x,·", "+ 2,y,·"]);
}

#[test]
fn a_malformed_answer_is_refused() {
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
    assert_good_guest_works();
}

#[test]
fn an_answer_has_a_size() {
    let body = "(call $ok (i32.const 0) (i32.const 2000000))";
    let more = "(func $grow (drop (memory.grow (i32.const 40)))) (start $grow)".to_owned();
    let message = always_fails(&Program { more, ..Program::process(answer(), body) });
    assert!(
        message.contains("answered with 2000000 bytes, at most 1048576 are allowed"),
        "{message}"
    );
}

#[test]
fn an_error_result_is_quoted() {
    let message = always_fails(&Program::process(answer(), "(call $error)"));
    assert!(message.contains("its process() answered with an error: it hurts"), "{message}");
}

#[test]
fn a_refused_plan_is_quoted() {
    let plan = Some("(call $error)".to_owned());
    let error = try_bind(&Program { plan, ..Program::keeping(answer()) }).err().unwrap();
    assert_eq!(error.to_string(), "guest test does not work with table public.t: it hurts");
}

#[test]
fn a_plan_that_does_not_fit_is_explained() {
    let plan = PlanAnswer { hides: vec!["email".into()], ..answer() };
    let error = try_bind(&Program::keeping(plan)).err().unwrap();
    let expected = "the plan of guest test does not fit table public.t: it hides column email, which the \
                    table does not have; it has id, a, b";
    assert_eq!(error.to_string(), expected);
    let key = PlanAnswer { replaces: vec![output("id", "")], ..answer() };
    let error = try_bind(&Program::keeping(key)).err().unwrap();
    assert!(error.to_string().contains("REPLICA IDENTITY FULL"), "{error}");
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
fn a_new_guest_is_tried_whatever_the_policy() {
    let tried = |program: &Program, values: &[&str], policy| {
        let bound = bind(program);
        bound.try_on(inserts(values), &mut Rendered::default(), policy).map_err(|e| e.to_string())
    };
    let trapping = Program::process(answer(), "(unreachable)");
    let policies = [OnGuestError::Halt, OnGuestError::DeadLetter, OnGuestError::Drop];
    for policy in policies {
        // A table without rows hides nothing.
        assert!(tried(&trapping, &[], policy).unwrap_err().contains("trapped"));
        assert!(tried(&trapping, &["x"; 3], policy).unwrap_err().contains("trapped"));
        assert_eq!(tried(&Program::keeping(answer()), &["x"; 3], policy), Ok(()));
    }
}
