//! The way out for the rows of one table version: through its guest, if it has one, to the packer of what comes out.
//!
//! Made anew when the table's shape or its guest changes. Who wants the rows, and whether the guest may be
//! swapped now, is not known here.

use std::{sync::Arc, time::Duration};

use walgate_wire::Schema;

use crate::{
    assets::registry::Gate,
    config::{OnGuestError, Table},
    encode::{RowError, TablePacker},
    guest::{Bound, GuestError, GuestFailure, Outcome},
    rows::{Rendered, TableVersion, batch::RowBatch},
};

/// Why rows of a table cannot leave at all.
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
    guest: Option<Guarded>,
    packer: TablePacker,
    output: Arc<TableVersion>,
}

/// What stands before the packer of a table with a guest.
struct Guarded {
    bound: Bound,
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
    pub fn open(gate: &Gate, table: &Table, input: TableVersion) -> Result<Outlet, OutletError> {
        let name = input.name.to_string();
        let module = match gate {
            Gate::Open => return Ok(Outlet::unguarded(input)),
            Gate::Shut(reason) => {
                return Err(OutletError::Shut { table: name, reason: Arc::clone(reason) });
            }
            Gate::Guest(module) => module,
        };
        let input = Arc::new(input);
        let bound = module
            .bind(Arc::clone(&input), &table.guest.parameters)
            .map_err(|source| OutletError::Guest { table: name, source: source.into() })?;
        let output = bound.output().clone();
        let guest = Guarded {
            needed: bound.needs_values(table.guest.on_error),
            input: TablePacker::new(&input),
            on_error: table.guest.on_error,
            bound,
        };
        Ok(Outlet { guest: Some(guest), packer: TablePacker::new(&output), output })
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

    /// Columns of the rows as they come in which no value may be missing when they [`pass`](Outlet::pass).
    pub fn needed(&self) -> &[usize] {
        self.guest.as_ref().map_or(&[], |guest| &guest.needed)
    }

    /// Whether batches have to go through [`Outlet::collect`] before they pass and are packed.
    pub fn renders(&self) -> bool {
        self.packer.renders() || self.guest.as_ref().is_some_and(|guest| guest.input.renders())
    }

    /// Notes in `rendered` what the server has to print.
    pub fn collect(&self, batch: &RowBatch, rendered: &mut Rendered) -> Result<(), RowError> {
        let packer = self.guest.as_ref().map_or(&self.packer, |guest| &guest.input);
        packer.collect(batch, rendered)
    }

    /// The rows as they may leave: all of them where there is no guest. Blocks for as long as the guest takes.
    pub fn pass(&self, batch: RowBatch, rendered: &mut Rendered) -> Result<Outcome, GuestFailure> {
        match &self.guest {
            Some(guest) => guest.bound.run(batch, rendered, guest.on_error),
            None => {
                let (took, called) = (Duration::ZERO, Duration::ZERO);
                Ok(Outcome { batch, dropped: 0, failed: vec![], took, called })
            }
        }
    }
}
