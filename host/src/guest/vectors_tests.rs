//! Tests that the gateway writes and reads the vectors of tests/vectors/guest.
//!
//! Guests in other languages are tested against the same vectors.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value as Json, json};
use walgate_guest::test::{Value as Shown, parse_row, parse_table, value_to_json};
use walgate_wire::{Identity, hex};

use crate::guest::{
    exec::{
        decisions::AnswerError,
        images::Image,
        layout::{GuestBuffer, Layout},
    },
    plan::{AnswerColumn, CompiledPlan, output_schema::PatchedColumn},
    test_support::{plan, table},
    *,
};
use crate::{
    guest::recorded_cells,
    rows::{
        Rendered, Type,
        batch::{Cell, RowBatch},
    },
};

const OPS: [&str; 4] = ["snapshot", "insert", "update", "delete"];

fn read(name: &str) -> Json {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/guest");
    let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn vectors() -> impl Iterator<Item = (&'static str, Json)> {
    ["empty", "region", "old_images", "untouched", "kinds"]
        .map(|name| (name, read(name)))
        .into_iter()
}

fn list(json: &Json) -> impl Iterator<Item = &Json> {
    json.as_array().unwrap().iter()
}

fn text(json: &Json) -> String {
    json.as_str().unwrap().to_owned()
}

fn bytes(json: &Json) -> Vec<u8> {
    walgate_guest::test::parse::hex(json.as_str().unwrap()).unwrap()
}

fn type_of(name: &str) -> Type {
    match name {
        "character varying(9)" => Type::base(1043),
        "text[]" => Type { oid: 1009, kind: crate::rows::Kind::Array(Box::new(Type::base(25))) },
        name => Type::base(OutputType::parse(name).unwrap().oid()),
    }
}

fn planned(vector: &Json) -> CompiledPlan {
    let columns: Vec<(String, Type)> = list(&vector["table"]["columns"])
        .map(|column| (text(&column["name"]), type_of(column["type"].as_str().unwrap())))
        .collect();
    let columns: Vec<_> = columns.iter().map(|(name, ty)| (&**name, ty.clone())).collect();
    let old_rows = vector["table"]["old_rows"] == true;
    let table = table(&columns, if old_rows { Identity::Full } else { Identity::Default });
    let output = |output: &Json| OutputColumn {
        column: text(&output["column"]),
        type_name: text(&output["type"]),
        nullable: output["nullable"] == true,
    };
    let planned = &vector["plan"];
    let answer = PlanAnswer {
        reads: list(&planned["reads"])
            .map(|r| (text(&r["column"]), r["unchanged"] == true))
            .collect(),
        hides: list(&planned["hides"]).map(text).collect(),
        replaces: list(&planned["replaces"]).map(output).collect(),
        adds: list(&planned["adds"]).map(output).collect(),
        filters: planned["filters"] == true,
    };
    plan(&table, answer)
}

/// The rows as Postgres would have sent them, as far as they are shown.
fn shown(vector: &Json, plan: &CompiledPlan) -> (RowBatch, Vec<Image>) {
    let mut head = vector["table"].clone();
    head["table"] = head["name"].take();
    head.as_object_mut().unwrap().remove("name");
    let table = parse_table(&head.to_string()).unwrap();
    let mut batch = RowBatch::new(plan.table.clone());
    let mut images = vec![];
    for row in list(&vector["rows"]) {
        let op = OPS.iter().position(|op| row["op"] == *op).unwrap() as u8;
        let flag = |name: &str, bit: u8| if row[name] == true { bit } else { 0 };
        let flags = op | flag("old_image", 4) | flag("key_only", 8) | flag("has_old", 16);
        images.push(Image { change_index: 0, first_cell: batch.cells.len() as u32, flags });
        let given = row["cells"].as_object().unwrap();
        let values: Map<_, _> = given
            .iter()
            .filter(|(_, cell)| cell["state"] == "value")
            .map(|(name, cell)| (name.clone(), cell["value"].clone()))
            .collect();
        let values = parse_row(&table, &values).unwrap();
        for (named, column) in plan.table.schema.columns.iter().zip(&plan.table.columns) {
            let unchanged = given.get(&named.name).is_some_and(|cell| cell["state"] == "unchanged");
            let value = values.get(&named.name).unwrap_or(&Shown::Null);
            let cell = recorded_cells::write_cell(&column.ty, value, &mut batch.bytes).unwrap();
            batch.cells.push(if unchanged { Cell::Unchanged } else { cell });
        }
    }
    (batch, images)
}

/// A value as recorded rows have it.
fn value(kind: GuestKind, value: GuestValue<'_>) -> Json {
    let shown = match (kind, value) {
        (_, GuestValue::Untouched) => return json!({"state": "untouched"}),
        (_, GuestValue::Null) => return json!({"state": "null"}),
        (_, GuestValue::Boolean(value)) => Shown::from(value),
        (GuestKind::Timestamp, GuestValue::Integer(at)) => walgate_guest::Timestamp(at).into(),
        (GuestKind::Date, GuestValue::Integer(day)) => walgate_guest::Date(day).into(),
        (GuestKind::Time, GuestValue::Integer(at)) => walgate_guest::Time(at).into(),
        (_, GuestValue::Integer(value)) => value.into(),
        (_, GuestValue::Float(value)) => value.into(),
        (_, GuestValue::Text(value)) => value.into(),
        (GuestKind::Uuid, GuestValue::Bytes(value)) => {
            walgate_guest::Uuid(value.try_into().unwrap()).into()
        }
        (_, GuestValue::Bytes(value)) => value.into(),
    };
    json!({"state": "value", "value": value_to_json(&shown)})
}

fn decided(plan: &CompiledPlan, decisions: &[u8], rows: usize) -> Result<Json, AnswerError> {
    let decisions = decode_answer(decisions, &AnswerShape { rows, columns: &plan.answer_columns })?;
    let row = |row: usize| {
        let (verdict, error) = match decisions.verdict(row) {
            Verdict::Keep => ("keep", None),
            Verdict::Drop => ("drop", None),
            Verdict::Error(error) => ("error", Some(error)),
        };
        let patches = plan.patches.iter().zip(&plan.answer_columns).enumerate();
        let cell = |(index, (patch, shape)): (usize, (&PatchedColumn, &AnswerColumn))| {
            (patch.column.clone(), value(shape.kind, decisions.value(index, row)))
        };
        let cells: BTreeMap<_, _> = patches.map(cell).collect();
        json!({"verdict": verdict, "error": error, "cells": cells})
    };
    Ok((0..rows).map(row).collect())
}

#[test]
fn batches_are_laid_out_to_the_byte() {
    for (name, vector) in vectors() {
        let plan = planned(&vector);
        let (batch, images) = shown(&vector, &plan);
        let mut buffer = GuestBuffer::default();
        let layout = Layout::new(&plan);
        layout.fill_buffer(&batch, &images, &mut Rendered::default(), &mut buffer).unwrap();
        assert_eq!(hex::encode(&buffer.bytes), vector["batch"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn decisions_mean_what_they_say() {
    for (name, vector) in vectors() {
        let rows = list(&vector["rows"]).count();
        let decided = decided(&planned(&vector), &bytes(&vector["decisions"]), rows);
        assert_eq!(decided.as_ref(), Ok(&vector["decided"]), "{name}");
    }
}

#[test]
fn damaged_decisions_are_refused() {
    let plan = planned(&read("region"));
    let refused = read("refused");
    let why: Vec<_> = list(&refused["decisions"])
        .map(|damaged| {
            let error = decided(&plan, &bytes(&damaged["bytes"]), 5).expect_err("it is damaged");
            format!("{}: {error}", text(&damaged["why"]))
        })
        .collect();
    let expected = [
        "a batch's magic number: it does not begin with \"WGD1\"",
        "another number of columns than the plan has: it has 1 columns where 2 were expected",
        "a verdict that is none: row 0 has a verdict of 3",
        "a text column that says it is bytes: column 0 of the answer: its kind is not that of its type in the plan",
        "an added column without states: column 1 of the answer: it is added, so that every row needs a state",
        "errors outside the buffer: its errors lie beyond its end or are not at a multiple of 8",
    ];
    assert_eq!(why, expected);
}
