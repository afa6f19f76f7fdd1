//! The side that faces the gateway: interface types to ours and back, the log, panics. Exists in wasm only;
//! what a guest does is not known here.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use crate::log::Level;
use crate::transform::{Instance, Transform};
use crate::{Column, Kind, Output, Plan, Read, Table};

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

/// A transform with the place that keeps its one instance. `#[transform]` implements this.
pub trait Stored: Transform {
    fn with<R>(visit: impl FnOnce(&RefCell<Option<Instance<Self>>>) -> R) -> R;
}

impl<T: Stored> exported::Guest for T {
    fn describe() -> types::Description {
        report_panics();
        types::Description { name: T::NAME.into(), version: T::VERSION.into() }
    }

    fn plan(table: types::Table) -> Result<types::Plan, String> {
        report_panics();
        let (instance, plan) = Instance::<T>::plan(&table.into())?;
        T::with(|slot| *slot.borrow_mut() = Some(instance));
        Ok(plan.into())
    }

    fn process(batch: Vec<u8>) -> Result<Vec<u8>, String> {
        T::with(|slot| match slot.borrow_mut().as_mut() {
            Some(instance) => instance.process(&batch),
            None => Err("a batch before the plan".into()),
        })
    }
}

/// The trap that ends a panicking guest says neither what nor where; the log does.
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

impl From<Plan> for types::Plan {
    fn from(plan: Plan) -> Self {
        let Plan { reads, hides, replaces, adds, filters } = plan;
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
