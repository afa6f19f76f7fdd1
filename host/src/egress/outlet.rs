//! The outlet of one table version: its guest, if it has one, and the packer of the published rows.
//!
//! A new one replaces it when the table's shape or its guest changes. Who asks for rows, and when
//! guests may be swapped, is not known here.

use std::{sync::Arc, time::Duration};

use walgate_wire::Schema;

use crate::{
    config::{ConfiguredTable, OnGuestError},
    encode::{RowError, TablePacker},
    guest::{BoundGuest, GuestError, GuestFailure, GuestOutcome, Module},
    rows::{Rendered, TableVersion, batch::RowBatch},
};

/// How rows of a table may be published.
#[derive(Clone, Default)]
pub enum Gate {
    /// As they are.
    #[default]
    Open,
    /// Those that the guest accepts.
    Guest(Arc<Module>),
    /// None: the guest that the table needs is missing or unusable, and why.
    Shut(Arc<str>),
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Gate::Open => write!(f, "Open"),
            Gate::Guest(module) => write!(f, "Guest({:?})", module.description()),
            Gate::Shut(reason) => write!(f, "Shut({reason})"),
        }
    }
}

impl Gate {
    /// Whether nothing changes for the table.
    pub fn is_same(&self, other: &Gate) -> bool {
        match (self, other) {
            (Gate::Open, Gate::Open) => true,
            (Gate::Guest(a), Gate::Guest(b)) => a.description() == b.description(),
            (Gate::Shut(a), Gate::Shut(b)) => a == b,
            _ => false,
        }
    }
}

/// Why no row of a table can be published.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// It has no guest that could be used.
    #[error("{table}: {reason}")]
    Shut { table: String, reason: Arc<str> },
    /// Its guest does not fit the table as it is now.
    #[error("{table}: {source}")]
    Guest { table: String, source: Box<GuestError> },
}

impl OutletError {
    pub fn table(&self) -> &str {
        match self {
            OutletError::Shut { table, .. } | OutletError::Guest { table, .. } => table,
        }
    }
}

pub struct Outlet {
    guest: Option<GuestStage>,
    packer: TablePacker,
    output: Arc<TableVersion>,
}

/// What precedes the packer of a table with a guest.
struct GuestStage {
    bound: BoundGuest,
    /// Of the rows as they come, for what the server has to print.
    input: TablePacker,
    /// Columns whose values the guest has to know, also where an update left them alone.
    needed: Vec<usize>,
    on_error: OnGuestError,
}

impl Outlet {
    /// For a table without a guest.
    pub fn unguarded(input: TableVersion) -> Outlet {
        let (packer, output) = (TablePacker::new(&input), input.into());
        Outlet { guest: None, packer, output }
    }

    /// Has the guest plan for the table's shape; blocks for as long as that takes.
    pub fn open(
        gate: &Gate,
        table: &ConfiguredTable,
        input: TableVersion,
    ) -> Result<Outlet, OutletError> {
        let name = input.name.to_string();
        let module = match gate {
            Gate::Open => return Ok(Outlet::unguarded(input)),
            Gate::Shut(reason) => {
                return Err(OutletError::Shut { table: name, reason: Arc::clone(reason) });
            }
            Gate::Guest(module) => module,
        };
        let bound = module
            .bind(Arc::new(input), &table.guest.parameters)
            .map_err(|source| OutletError::Guest { table: name, source: source.into() })?;
        Ok(Outlet::guarded(bound, table.guest.on_error))
    }

    /// Through a guest that is bound to the table already.
    pub fn guarded(bound: BoundGuest, on_error: OnGuestError) -> Outlet {
        let output = bound.output().clone();
        let guest = GuestStage {
            needed: bound.needs_values(on_error),
            input: TablePacker::new(bound.input()),
            on_error,
            bound,
        };
        Outlet { guest: Some(guest), packer: TablePacker::new(&output), output }
    }

    /// The rows that leave have the shape of this schema, which is stored now.
    pub fn with_schema(mut self, schema: Schema) -> Outlet {
        self.output = Arc::new(TableVersion { schema, ..TableVersion::clone(&self.output) });
        if let Some(guest) = &mut self.guest {
            guest.bound.with_schema(self.output.schema.clone());
        }
        self
    }

    /// The table as consumers see it.
    pub fn output(&self) -> &Arc<TableVersion> {
        &self.output
    }

    pub fn packer(&self) -> &TablePacker {
        &self.packer
    }

    pub fn has_guest(&self) -> bool {
        self.guest.is_some()
    }

    /// Columns of the input in which no value may be missing when the guest is
    /// [applied](Outlet::apply_guest).
    pub fn columns_needing_values(&self) -> &[usize] {
        self.guest.as_ref().map_or(&[], |guest| &guest.needed)
    }

    /// Whether batches need [`Outlet::collect_server_rendered`] before the guest and the packer.
    pub fn renders(&self) -> bool {
        self.packer.renders() || self.guest.as_ref().is_some_and(|guest| guest.input.renders())
    }

    /// Notes in `rendered` what the server has to print.
    pub fn collect_server_rendered(
        &self,
        batch: &RowBatch,
        rendered: &mut Rendered,
    ) -> Result<(), RowError> {
        let packer = self.guest.as_ref().map_or(&self.packer, |guest| &guest.input);
        packer.collect_server_rendered(batch, rendered)
    }

    /// The rows that are published: all of them if there is no guest. Blocks for as long as the
    /// guest takes.
    pub fn apply_guest(
        &self,
        batch: RowBatch,
        rendered: &mut Rendered,
    ) -> Result<GuestOutcome, GuestFailure> {
        match &self.guest {
            Some(guest) => guest.bound.run(batch, rendered, guest.on_error),
            None => {
                let (took, called) = (Duration::ZERO, Duration::ZERO);
                Ok(GuestOutcome { batch, dropped: 0, failed: vec![], took, called })
            }
        }
    }

    /// Whether the guest gets through rows of its table. Blocks for as long as the guest takes.
    pub fn try_guest(&self, batch: RowBatch, rendered: &mut Rendered) -> Result<(), GuestFailure> {
        match &self.guest {
            Some(guest) => guest.bound.try_on(batch, rendered, guest.on_error),
            None => Ok(()),
        }
    }
}
