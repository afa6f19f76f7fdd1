//! Vectors of the two flat layouts: bytes, and what they mean as JSON. `tests/vectors/guest` holds
//! them for other languages.

#[path = "refused.rs"]
mod refused;

use serde_json::{Value as Json, json};
use walgate_guest::prelude::*;
use walgate_guest::test::{Change, Decided, Image, encode_batch, value_to_json};
use walgate_guest::transform::{Instance, Transform};

const OPS: [&str; 4] = ["snapshot", "insert", "update", "delete"];

/// Names and contents of all files.
pub fn all() -> Vec<(&'static str, Json)> {
    vec![
        ("empty", vector::<region>(&people(), "No rows.", &[])),
        (
            "region",
            vector::<region>(
                &people(),
                "Text and NULL; a masked text, a row dropped, one that fails.",
                &region_rows(),
            ),
        ),
        (
            "old_images",
            vector::<region>(
                &people().old_rows(),
                "An update with its whole old row, one with the old key alone, a delete.",
                &old_rows(),
            ),
        ),
        (
            "untouched",
            vector::<keep>(
                &people(),
                "A column that is replaced nowhere in the batch has no states and no data.",
                &region_rows()[..1],
            ),
        ),
        (
            "kinds",
            vector::<kinds>(
                &everything(),
                "Every kind, values, NULL and unchanged; every fixed width written.",
                &kinds_rows(),
            ),
        ),
        ("refused", json!({ "batches": refused::batches(), "decisions": refused::decisions() })),
    ]
}

#[derive(Columns)]
struct Person<'a> {
    email: &'a str,
    country: Option<&'a str>,
}

#[transform(hide("secret"), replace("email"), add("length", "int4"))]
fn region(person: Person<'_>, out: &mut Out<'_>) -> Result<Verdict, String> {
    if person.country != Some("DE") {
        return Ok(Verdict::Drop);
    }
    let length = i32::try_from(person.email.len()).map_err(|e| e.to_string())?;
    if length == 0 {
        return Err("no address".into());
    }
    out.length(length);
    out.email(mask(person.email));
    Ok(Verdict::Keep)
}

mod untouched {
    use super::*;

    #[transform(replace("email"), never_drops)]
    pub fn keep(_out: &mut Out<'_>) -> Verdict {
        Verdict::Keep
    }
}
use untouched::keep;

mod every {
    use super::*;

    #[transform(
        replace("at", "timestamptz"),
        replace("blob", "bytea"),
        add("flag", "bool"),
        add("half", "float8"),
        add("day", "date"),
        add("clock", "time"),
        add("ident", "uuid"),
        add("price", "numeric", not_null)
    )]
    pub fn kinds(columns: AllColumns<'_>, out: &mut Out<'_>) -> Verdict {
        if let Some(Cell::Value(Any::Timestamp(at))) = columns.get(6) {
            out.at(at.truncate_to_hour());
            out.day(at.date());
            out.clock(at.time());
        }
        if let Some(Cell::Value(Any::Integer(n))) = columns.get(1) {
            out.flag(n > 0);
            out.half(n as f64 / 2.0);
            out.ident(Uuid([n as u8; 16]));
            out.blob((n > 0).then_some(&[0u8, 255][..]));
        }
        out.price(Decimal::new(1230, 2));
        Verdict::Keep
    }
}
use every::kinds;

fn people() -> Table {
    Table::new("public.people")
        .key("id", "bigint")
        .column("email", "text")
        .nullable("country", "text")
        .column("secret", "text")
}

fn person(
    id: i64,
    email: &str,
    country: Option<&str>,
) -> [(&'static str, walgate_guest::test::Value); 4] {
    [
        ("id", id.into()),
        ("email", email.into()),
        ("country", country.into()),
        ("secret", "s".into()),
    ]
}

fn region_rows() -> Vec<Change> {
    vec![
        Change::snapshot(person(1, "ada@example.org", Some("DE"))),
        Change::insert(person(2, "grün@example.org", Some("FR"))),
        Change::insert(person(3, "nowhere@example.org", None)),
        Change::insert(person(4, "", Some("DE"))),
        Change::update(person(5, "ünal@example.org", Some("DE"))),
    ]
}

fn old_rows() -> Vec<Change> {
    vec![
        Change::update(person(1, "ada@example.org", Some("FR"))).with_old(person(
            1,
            "ada@example.org",
            Some("DE"),
        )),
        Change::update(person(7, "bob@example.org", Some("DE"))).with_old([("id", 6.into())]),
        Change::delete(person(3, "eve@example.org", Some("DE"))),
    ]
}

fn everything() -> Table {
    Table::new("public.everything")
        .nullable("flag_in", "boolean")
        .key("n", "bigint")
        .nullable("f", "real")
        .nullable("t", "character varying(9)")
        .nullable("blob", "bytea")
        .nullable("u", "uuid")
        .nullable("at", "timestamp with time zone")
        .nullable("d", "date")
        .nullable("c", "time without time zone")
        .nullable("tags", "text[]")
}

fn kinds_rows() -> Vec<Change> {
    let table = everything();
    let lines = [
        r#"{"op":"insert","new":{"flag_in":true,"n":-2,"f":0.5,"t":"aé","blob":"\\x00ff","u":"0f8fad5b-d9cb-469f-a165-70867728950e","at":"2024-05-01T10:11:12.5Z","d":"1969-12-31","c":"10:11:12","tags":["a",null,"b"]}}"#,
        r#"{"op":"insert","new":{"n":1}}"#,
        r#"{"op":"update","new":{"n":2,"at":"infinity","d":"-infinity","c":"24:00:00"},"unchanged":["t","tags"]}"#,
    ];
    lines
        .iter()
        .map(|line| walgate_guest::test::parse_change(&table, line).expect("a vector"))
        .collect()
}

fn vector<T: Transform>(table: &Table, what: &str, changes: &[Change]) -> Json {
    let (mut instance, plan) = Instance::<T>::plan(table).expect("a vector");
    let images = walgate_guest::test::batch_images(table, changes);
    let batch = encode_batch(table, &plan, &images).expect("a vector");
    let decisions = instance.process(&batch).expect("a vector");
    let decided = Decided::decode(&decisions, table, &plan).expect("a vector");
    let reads: Vec<_> =
        plan.reads.iter().map(|r| json!({"column": r.column, "unchanged": r.unchanged})).collect();
    let outputs = |outputs: &[walgate_guest::Output]| -> Json {
        outputs
            .iter()
            .map(|o| json!({"column": o.column, "type": o.type_name, "nullable": o.nullable}))
            .collect()
    };
    json!({
        "what": what,
        "table": table_json(table),
        "plan": {"reads": reads, "hides": plan.hides, "replaces": outputs(&plan.replaces), "adds": outputs(&plan.adds), "filters": plan.filters},
        "batch": hex(&batch),
        "rows": images.iter().map(|image| row_json(&plan, image)).collect::<Json>(),
        "decisions": hex(&decisions),
        "decided": (0..images.len()).map(|row| decided_json(&plan, &decided, row)).collect::<Json>(),
    })
}

fn table_json(table: &Table) -> Json {
    let columns: Json = table.columns.iter().map(|c| json!({
        "name": c.name, "type": c.type_name, "kind": format!("{:?}", c.kind).to_lowercase(), "nullable": c.nullable, "key": c.key,
    })).collect();
    json!({"name": table.name, "columns": columns, "old_rows": table.old_rows, "parameters": table.parameters})
}

/// Values as in recorded rows; `{"state": …}` for what is none.
fn cell_json(value: Option<&walgate_guest::test::Value>, missing: &str, unchanged: &str) -> Json {
    match value {
        None => json!({"state": missing}),
        Some(walgate_guest::test::Value::Unchanged) => json!({"state": unchanged}),
        Some(walgate_guest::test::Value::Null) => json!({"state": "null"}),
        Some(value) => json!({"state": "value", "value": value_to_json(value)}),
    }
}

fn row_json(plan: &walgate_guest::GuestPlan, image: &Image<'_>) -> Json {
    let flags = image.flags;
    let missing = if flags & 8 != 0 { "absent" } else { "null" };
    let cells: serde_json::Map<_, _> = plan
        .reads
        .iter()
        .map(|read| {
            (read.column.clone(), cell_json(image.cells.get(&read.column), missing, "unchanged"))
        })
        .collect();
    let op = OPS[usize::from(flags & 3)];
    json!({"op": op, "old_image": flags & 4 != 0, "key_only": flags & 8 != 0, "has_old": flags & 16 != 0, "cells": cells})
}

fn decided_json(plan: &walgate_guest::GuestPlan, decided: &Decided, row: usize) -> Json {
    let cells: serde_json::Map<_, _> = plan
        .replaces
        .iter()
        .chain(&plan.adds)
        .zip(&decided.columns)
        .map(|(output, values)| {
            (output.column.clone(), cell_json(Some(&values[row]), "null", "untouched"))
        })
        .collect();
    let error = decided.errors.iter().find(|(at, _)| *at == row).map(|(_, text)| text);
    let verdict = ["drop", "keep", "error"][usize::from(decided.verdicts[row])];
    json!({"verdict": verdict, "error": error, "cells": cells})
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
