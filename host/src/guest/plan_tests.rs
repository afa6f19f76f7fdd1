//! Tests of plans: what is refused, and what the table looks like behind one.

use super::*;
use crate::{
    guest::test_support::{guest, output, plan, reads, table, texts},
    rows::Type,
};

fn refused(table: &Arc<TableVersion>, answer: PlanAnswer) -> String {
    CompiledPlan::new(Arc::clone(table), answer, guest()).unwrap_err().to_string()
}

fn hides(columns: &[&str]) -> PlanAnswer {
    PlanAnswer { hides: columns.iter().map(|c| (*c).to_owned()).collect(), ..PlanAnswer::default() }
}

fn replaces(outputs: &[OutputColumn]) -> PlanAnswer {
    PlanAnswer { replaces: outputs.to_vec(), ..PlanAnswer::default() }
}

fn adds(outputs: &[OutputColumn]) -> PlanAnswer {
    PlanAnswer { adds: outputs.to_vec(), ..PlanAnswer::default() }
}

#[test]
fn columns_that_are_not_there_are_named() {
    let table = texts(Identity::Default);
    let read = PlanAnswer { reads: reads(&["email"]), ..PlanAnswer::default() };
    let message = refused(&table, read);
    assert_eq!(message, "it reads column email, which the table does not have; it has id, a, b");
    assert!(refused(&table, hides(&["c"])).starts_with("it hides column c, which"));
    assert!(refused(&table, replaces(&[output("c", "")])).starts_with("it replaces column c,"));
}

#[test]
fn contradictions_are_refused() {
    let table = texts(Identity::Default);
    let read = PlanAnswer { reads: reads(&["a", "a"]), ..PlanAnswer::default() };
    assert!(refused(&table, read).contains("column a twice in what it reads"));
    assert!(refused(&table, hides(&["a", "a"])).contains("twice"));
    assert!(refused(&table, replaces(&[output("a", ""), output("a", "")])).contains("twice"));
    assert!(refused(&table, adds(&[output("c", "text"), output("c", "text")])).contains("twice"));
    assert!(refused(&table, adds(&[output("a", "text")])).contains("replace it instead"));
    let both = PlanAnswer { replaces: vec![output("a", "")], ..hides(&["a"]) };
    assert!(refused(&table, both).contains("both hides and replaces column a"));
}

#[test]
fn keys_stay_unless_old_rows_are_sent() {
    let table = texts(Identity::Default);
    assert!(refused(&table, hides(&["id"])).contains("REPLICA IDENTITY FULL"));
    let message = refused(&table, replaces(&[output("id", "")]));
    assert!(message.contains("ALTER TABLE public.t REPLICA IDENTITY FULL"), "{message}");
    let full = plan(&texts(Identity::Full), replaces(&[output("id", "")]));
    assert!(full.replaces_key);
    assert!(!full.output.schema.columns[0].nullable, "a key is never null");
}

#[test]
fn types_have_to_be_known() {
    let inet = Type { oid: 869, kind: crate::rows::Kind::Rendered };
    let table = table(&[("id", Type::base(23)), ("ip", inet)], Identity::Default);
    let message = refused(&table, replaces(&[output("ip", "")]));
    assert!(message.contains("keeps its type type 869, which a guest cannot put out"), "{message}");
    let message = refused(&table, adds(&[output("c", "varchar(20)")]));
    assert!(
        message.contains("\"varchar(20)\", which there is not; there are boolean"),
        "{message}"
    );
    assert!(refused(&table, adds(&[output("c", "")])).contains("which there is not"));
    assert!(refused(&table, adds(&[output("", "text")])).contains("1 to 63 bytes"));
    assert!(refused(&table, adds(&[output(&"x".repeat(64), "text")])).contains("63 bytes"));
    let many: Vec<OutputColumn> = (0..1599).map(|i| output(&format!("c{i}"), "text")).collect();
    assert!(refused(&table, adds(&many)).contains("1601 columns"));
    assert!(plan(&table, replaces(&[output("ip", "text")])).output.columns[1].oid == 25);
}

#[test]
fn the_output_has_the_columns_in_order() {
    let table = table(
        &[
            ("id", Type::base(23)),
            ("name", Type::base(1043)),
            ("secret", Type::base(25)),
            ("total", Type::base(1700)),
        ],
        Identity::Full,
    );
    let answer = PlanAnswer {
        reads: reads(&["secret"]),
        hides: vec!["secret".into()],
        replaces: vec![output("total", "float8"), output("name", "")],
        adds: vec![output("region", "text"), output("year", "int4")],
        filters: false,
    };
    let plan = plan(&table, answer);
    let columns: Vec<_> =
        plan.output.schema.columns.iter().map(|c| (&*c.name, &*c.type_name, c.oid)).collect();
    let expected = [
        ("id", "type 23", 23),
        ("name", "text", 25),
        ("total", "double precision", 701),
        ("region", "text", 25),
        ("year", "integer", 23),
    ];
    assert_eq!(columns, expected);
    let oids: Vec<u32> = plan.output.columns.iter().map(|column| column.ty.oid).collect();
    assert_eq!(oids, expected.map(|(_, _, oid)| oid));
    assert_eq!(plan.output.schema.columns[2].attnum, 4, "a replaced column stays in its place");
    assert_eq!(plan.output.schema.old, [0, 1, 2], "hidden columns leave the old row");
    assert_eq!(plan.output.schema.revision, 0);
    assert_eq!(plan.output.schema.guest, Some(guest()));
    assert_eq!(plan.patches[1].replaces, Some((1, true)));
    assert_eq!(plan.patches[0].replaces, Some((3, false)), "its type changes");
    assert!(!plan.keeps_rows());
}

#[test]
fn attnums_of_added_columns_depend_on_their_names() {
    let table = texts(Identity::Default);
    let attnum = |outputs: &[OutputColumn], name: &str| {
        let columns = &plan(&table, adds(outputs)).output.schema.columns;
        columns.iter().find(|column| column.name == name).map(|column| column.attnum).unwrap()
    };
    let (c, d) = (output("c", "text"), output("d", "text"));
    let alone = attnum(std::slice::from_ref(&c), "c");
    assert_eq!(attnum(&[d.clone(), c.clone()], "c"), alone);
    assert_ne!(attnum(&[c, d], "d"), alone);
    let many: Vec<OutputColumn> = (0..1500).map(|i| output(&format!("c{i}"), "text")).collect();
    let columns = plan(&table, adds(&many)).output.schema.columns.clone();
    let attnums: HashSet<i16> = columns.iter().map(|column| column.attnum).collect();
    assert_eq!(attnums.len(), columns.len(), "each has its own");
    assert!(attnums.iter().all(|&attnum| attnum > 0 || attnum <= -2000));
}

#[test]
fn what_has_to_be_looked_up() {
    let table = texts(Identity::Default);
    let mut answer = PlanAnswer {
        reads: vec![("a".into(), false), ("b".into(), true)],
        hides: vec!["b".into()],
        ..PlanAnswer::default()
    };
    let needed =
        |answer: &PlanAnswer, on_error| plan(&table, answer.clone()).needs_values(on_error);
    assert_eq!(needed(&answer, OnGuestError::Halt), [1]);
    let whole = "what can enter has to be whole";
    assert_eq!(needed(&answer, OnGuestError::Drop), [0, 1], "{whole}");
    assert_eq!(needed(&answer, OnGuestError::DeadLetter), [0, 1], "{whole}");
    answer.filters = true;
    assert_eq!(needed(&answer, OnGuestError::Halt), [0, 1], "{whole}");
}
