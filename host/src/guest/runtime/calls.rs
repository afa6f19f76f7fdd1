//! The interface's types as the runtime passes them, and the way from and to those that the rest knows.
//!
//! Field for field guest-sdk/wit/guest.wit. What they mean is not known here.

use std::collections::BTreeMap;

use walgate_wire::Identity;
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::guest::plan::{self, Answer, kinds};
use crate::rows::{ColumnType, TableVersion};

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum Kind {
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "integer")]
    Integer,
    #[component(name = "float")]
    Float,
    #[component(name = "text")]
    Text,
    #[component(name = "bytes")]
    Bytes,
    #[component(name = "uuid")]
    Uuid,
    #[component(name = "timestamp")]
    Timestamp,
    #[component(name = "date")]
    Date,
    #[component(name = "time")]
    Time,
    #[component(name = "packed")]
    Packed,
}

impl From<kinds::Kind> for Kind {
    fn from(kind: kinds::Kind) -> Kind {
        match kind {
            kinds::Kind::Boolean => Kind::Boolean,
            kinds::Kind::Integer => Kind::Integer,
            kinds::Kind::Float => Kind::Float,
            kinds::Kind::Text => Kind::Text,
            kinds::Kind::Bytes => Kind::Bytes,
            kinds::Kind::Uuid => Kind::Uuid,
            kinds::Kind::Timestamp => Kind::Timestamp,
            kinds::Kind::Date => Kind::Date,
            kinds::Kind::Time => Kind::Time,
            kinds::Kind::Packed => Kind::Packed,
        }
    }
}

#[derive(Clone, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Column {
    name: String,
    #[component(name = "type-name")]
    type_name: String,
    kind: Kind,
    nullable: bool,
    key: bool,
}

#[derive(Clone, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Table {
    name: String,
    columns: Vec<Column>,
    #[component(name = "old-rows")]
    old_rows: bool,
    parameters: Vec<(String, String)>,
}

impl Table {
    pub(crate) fn new(table: &TableVersion, parameters: &BTreeMap<String, String>) -> Table {
        let column = |(column, read): (&walgate_wire::Column, &ColumnType)| {
            let (type_name, kind) = plan::told(column, &read.ty);
            Column {
                name: column.name.clone(),
                type_name: type_name.to_owned(),
                kind: kind.into(),
                nullable: column.nullable,
                key: column.key,
            }
        };
        Table {
            name: table.name.to_string(),
            columns: table.schema.columns.iter().zip(&table.columns).map(column).collect(),
            old_rows: table.schema.identity == Identity::Full,
            parameters: parameters.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) version: String,
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Read {
    column: String,
    unchanged: bool,
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Output {
    column: String,
    #[component(name = "type-name")]
    type_name: String,
    nullable: bool,
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Plan {
    reads: Vec<Read>,
    hides: Vec<String>,
    replaces: Vec<Output>,
    adds: Vec<Output>,
    filters: bool,
}

impl From<Plan> for Answer {
    fn from(plan: Plan) -> Answer {
        let outputs = |outputs: Vec<Output>| {
            let output = |output: Output| {
                let Output { column, type_name, nullable } = output;
                plan::Output { column, type_name, nullable }
            };
            outputs.into_iter().map(output).collect()
        };
        Answer {
            reads: plan.reads.into_iter().map(|read| (read.column, read.unchanged)).collect(),
            hides: plan.hides,
            replaces: outputs(plan.replaces),
            adds: outputs(plan.adds),
            filters: plan.filters,
        }
    }
}

/// Of the imported `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the runtime makes them of what a guest passes")]
pub(super) enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
