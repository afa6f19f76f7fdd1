//! Tests of the preflight's judgement; no server.

use super::*;
use crate::postgres::catalog::{RelKind, table_for_test as table};

fn fine() -> Server {
    Server {
        version: 150_000,
        version_text: "15".into(),
        wal_level: "logical".into(),
        recovery: false,
        role: "walgate".into(),
        replication: true,
        slots_used: 9,
        slots_max: 10,
        senders_used: 9,
        senders_max: 10,
    }
}

fn server_problems(server: Server) -> Vec<String> {
    let mut problems = vec![];
    check_server(&server, (false, false), "walgate", &mut problems);
    problems
}

fn table_findings(table: TableInfo) -> (Vec<String>, Vec<String>) {
    let (mut problems, mut warnings) = (vec![], vec![]);
    check_table(&table, &TypeCache::default(), "walgate", &mut problems, &mut warnings);
    (problems, warnings)
}

#[test]
fn a_server_that_will_do_is_left_alone() {
    assert_eq!(server_problems(fine()), [""; 0]);
    assert_eq!(table_findings(table("users")), (vec![], vec![]));
}

#[test]
fn a_server_that_is_too_old_is_told_what_is_needed() {
    let of = |version, text: &str| Server { version, version_text: text.into(), ..fine() };
    assert!(check_version(&of(150_000, "15.0")).is_ok());
    assert!(check_version(&of(180_006, "18.6")).is_ok());
    let error = check_version(&of(140_019, "14.19")).unwrap_err();
    assert_eq!(error.to_string(), "Postgres 14.19 is too old: walgate needs version 15 or newer");
    assert_eq!(error.kind(), crate::postgres::ErrorKind::Fatal, "waiting does not help");
}

#[test]
fn each_problem_of_a_server_names_its_remedy() {
    let bad = Server {
        wal_level: "replica".into(),
        replication: false,
        slots_used: 10,
        senders_used: 10,
        recovery: true,
        ..fine()
    };
    let problems = server_problems(bad);
    let remedies = [
        "ALTER SYSTEM SET wal_level",
        "the primary",
        "ALTER ROLE \"walgate\" REPLICATION",
        "max_replication_slots",
        "max_wal_senders",
    ];
    assert_eq!(problems.len(), remedies.len());
    for (problem, remedy) in problems.iter().zip(remedies) {
        assert!(problem.contains(remedy), "{problem}");
    }
}

#[test]
fn each_problem_of_a_table_names_its_remedy() {
    let leaf = Leaf {
        name: TableName::new("public", "users_1"),
        identity: Identity::Default,
        foreign: false,
    };
    let bad = TableInfo {
        readable: false,
        row_security: true,
        identity: Identity::Full,
        leaves: vec![leaf],
        ..table("users")
    };
    let (problems, warnings) = table_findings(bad);
    let remedies =
        ["GRANT SELECT ON \"public\".\"users\"", "BYPASSRLS", "\"users_1\" REPLICA IDENTITY FULL"];
    assert_eq!(problems.len(), remedies.len());
    for (problem, remedy) in problems.iter().zip(remedies) {
        assert!(problem.contains(remedy), "{problem}");
    }
    assert!(warnings.is_empty());
}

#[test]
fn a_table_whose_updates_would_be_refused_is_warned_about() {
    let (problems, warnings) = table_findings(TableInfo { primary_key: vec![], ..table("log") });
    assert!(problems.is_empty());
    assert!(warnings[0].contains("REPLICA IDENTITY FULL"));
    let view = TableInfo { primary_key: vec![], kind: RelKind::View, ..table("v") };
    assert_eq!(table_findings(view), (vec![], vec![]));
}

#[test]
fn near_names_are_offered() {
    let name = |text: &str| text.parse::<TableName>().unwrap();
    let names: Vec<TableName> = ["users", "orders", "sales.user", "x"].map(name).to_vec();
    assert_eq!(near_names(&name("usres"), &names), ["public.users", "sales.user"]);
    assert_eq!(near_names(&name("Orders"), &names), ["public.orders"]);
    assert!(near_names(&name("products"), &names).is_empty());
    assert_eq!(edit_distance("kitten", "sitting"), 3);
}
