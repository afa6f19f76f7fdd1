//! The exports to the gateway: conversion of interface types, the log, and panics. In wasm only.
//!
//! This module does not know what the guest does.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use crate::log::Level;
use crate::transform::{Instance, Transform};
use crate::{Column, GuestPlan, Kind, Output, Read, Table};

#[allow(
    unsafe_code,
    clippy::all,
    missing_docs,
    reason = "generated: passing strings and lists to the host is done with pointers"
)]
mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "guest",
        pub_export_macro: true,
        default_bindings_module: "walgate_guest::wasm",
    });
}

use bindings::exports::walgate::guest::transform as exported;
use bindings::walgate::guest::{host, types};
pub use bindings::{export, exports, walgate};

/// A transform whose only instance is in a static. `#[transform]` implements it.
pub trait StoredInstance: Transform {
    /// Calls `visit` with the instance; `None` before `plan`.
    fn with_instance<R>(visit: impl FnOnce(&RefCell<Option<Instance<Self>>>) -> R) -> R;
}

impl<T: StoredInstance> exported::Guest for T {
    fn describe() -> types::Description {
        report_panics();
        types::Description { name: T::NAME.into(), version: T::VERSION.into() }
    }

    fn plan(table: types::Table) -> Result<types::Plan, String> {
        report_panics();
        let (instance, plan) = Instance::<T>::plan(&table.into())?;
        T::with_instance(|slot| *slot.borrow_mut() = Some(instance));
        Ok(plan.into())
    }

    fn process(batch: Vec<u8>) -> Result<Vec<u8>, String> {
        T::with_instance(|slot| match slot.borrow_mut().as_mut() {
            Some(instance) => instance.process(&batch),
            None => Err("a batch before the plan".into()),
        })
    }
}

/// Logs panics. The trap that ends a panicking guest has neither message nor location.
fn report_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|info| log(Level::Error, &info.to_string()))));
}

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
        Level::Error => host::Level::Error,
    };
    host::log(level, message);
}

impl From<types::Table> for Table {
    fn from(table: types::Table) -> Self {
        let types::Table { name, columns, old_rows, parameters } = table;
        Table {
            name,
            columns: columns.into_iter().map(Column::from).collect(),
            old_rows,
            parameters,
        }
    }
}

impl From<types::Column> for Column {
    fn from(column: types::Column) -> Self {
        let types::Column { name, type_name, kind, nullable, key } = column;
        Column { name, type_name, kind: kind.into(), nullable, key }
    }
}

impl From<types::Kind> for Kind {
    fn from(kind: types::Kind) -> Self {
        match kind {
            types::Kind::Boolean => Kind::Boolean,
            types::Kind::Integer => Kind::Integer,
            types::Kind::Float => Kind::Float,
            types::Kind::Text => Kind::Text,
            types::Kind::Bytes => Kind::Bytes,
            types::Kind::Uuid => Kind::Uuid,
            types::Kind::Timestamp => Kind::Timestamp,
            types::Kind::Date => Kind::Date,
            types::Kind::Time => Kind::Time,
            types::Kind::Packed => Kind::Packed,
        }
    }
}

impl From<GuestPlan> for types::Plan {
    fn from(plan: GuestPlan) -> Self {
        let GuestPlan { reads, hides, replaces, adds, filters } = plan;
        let read = |Read { column, unchanged }| types::Read { column, unchanged };
        let output =
            |Output { column, type_name, nullable }| types::Output { column, type_name, nullable };
        types::Plan {
            reads: reads.into_iter().map(read).collect(),
            hides,
            replaces: replaces.into_iter().map(output).collect(),
            adds: adds.into_iter().map(output).collect(),
            filters,
        }
    }
}
