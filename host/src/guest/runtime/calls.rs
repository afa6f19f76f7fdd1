//! The types of the interface as the runtime passes them, and conversions to the gateway's own.
//!
//! They follow guest-sdk/wit/guest.wit field by field. Their meaning is not known here.

use std::collections::BTreeMap;

use walgate_wire::Identity;
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::guest::plan::{self, PlanAnswer, kinds};
use crate::rows::{ColumnType, TableVersion};

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum WitKind {
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

impl From<kinds::Kind> for WitKind {
    fn from(kind: kinds::Kind) -> WitKind {
        match kind {
            kinds::Kind::Boolean => WitKind::Boolean,
            kinds::Kind::Integer => WitKind::Integer,
            kinds::Kind::Float => WitKind::Float,
            kinds::Kind::Text => WitKind::Text,
            kinds::Kind::Bytes => WitKind::Bytes,
            kinds::Kind::Uuid => WitKind::Uuid,
            kinds::Kind::Timestamp => WitKind::Timestamp,
            kinds::Kind::Date => WitKind::Date,
            kinds::Kind::Time => WitKind::Time,
            kinds::Kind::Packed => WitKind::Packed,
        }
    }
}

#[derive(Clone, ComponentType, Lower)]
#[component(record)]
pub struct WitColumn {
    name: String,
    #[component(name = "type-name")]
    type_name: String,
    kind: WitKind,
    nullable: bool,
    key: bool,
}

#[derive(Clone, ComponentType, Lower)]
#[component(record)]
pub struct WitTable {
    name: String,
    columns: Vec<WitColumn>,
    #[component(name = "old-rows")]
    old_rows: bool,
    parameters: Vec<(String, String)>,
}

impl WitTable {
    pub fn new(table: &TableVersion, parameters: &BTreeMap<String, String>) -> WitTable {
        let column = |(column, read): (&walgate_wire::Column, &ColumnType)| {
            let (type_name, kind) = plan::shown_type(column, &read.ty);
            WitColumn {
                name: column.name.clone(),
                type_name: type_name.to_owned(),
                kind: kind.into(),
                nullable: column.nullable,
                key: column.key,
            }
        };
        WitTable {
            name: table.name.to_string(),
            columns: table.schema.columns.iter().zip(&table.columns).map(column).collect(),
            old_rows: table.schema.identity == Identity::Full,
            parameters: parameters.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct WitDescription {
    pub(super) name: String,
    pub(super) version: String,
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct WitRead {
    column: String,
    unchanged: bool,
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct WitOutput {
    column: String,
    #[component(name = "type-name")]
    type_name: String,
    nullable: bool,
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct WitPlan {
    reads: Vec<WitRead>,
    hides: Vec<String>,
    replaces: Vec<WitOutput>,
    adds: Vec<WitOutput>,
    filters: bool,
}

impl From<WitPlan> for PlanAnswer {
    fn from(plan: WitPlan) -> PlanAnswer {
        let outputs = |outputs: Vec<WitOutput>| {
            let output = |output: WitOutput| {
                let WitOutput { column, type_name, nullable } = output;
                plan::OutputColumn { column, type_name, nullable }
            };
            outputs.into_iter().map(output).collect()
        };
        PlanAnswer {
            reads: plan.reads.into_iter().map(|read| (read.column, read.unchanged)).collect(),
            hides: plan.hides,
            replaces: outputs(plan.replaces),
            adds: outputs(plan.adds),
            filters: plan.filters,
        }
    }
}

/// The level of the imported function `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the runtime constructs them from what a guest passes")]
pub(super) enum WitLogLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
