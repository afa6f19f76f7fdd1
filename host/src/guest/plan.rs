//! A guest's plan × the table → the columns that are read, the output, and the source of each cell.
//!
//! Pure. A wrong plan is refused here, with the column and a remedy, before the guest sees a row.

pub mod kinds;
pub mod output_schema;
pub mod output_types;

use std::{collections::HashSet, ops::Range, sync::Arc};

use walgate_wire::{Column, Guest, Identity};

use crate::guest::{
    OnGuestError,
    plan::{
        kinds::Kind,
        output_schema::{
            CellSource, PatchedColumn, cell_sources, input_runs, output_table, patch_places,
        },
        output_types::{OutputType, OutputTypeExt},
    },
};
use crate::rows::{TableVersion, Type};

/// Postgres' NAMEDATALEN: what a consumer's column can be called.
const NAME_BYTES_MAX: usize = 63;
/// Postgres' MaxHeapAttributeNumber.
const COLUMNS_MAX: usize = 1600;

/// The plan as the guest answered it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanAnswer {
    /// Column, and whether the guest accepts unchanged cells of it.
    pub reads: Vec<(String, bool)>,
    pub hides: Vec<String>,
    pub replaces: Vec<OutputColumn>,
    pub adds: Vec<OutputColumn>,
    pub filters: bool,
}

/// A column that the guest replaces or adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputColumn {
    pub column: String,
    /// Empty: the column's own type.
    pub type_name: String,
    pub nullable: bool,
}

/// A plan that does not fit its table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("it {what} column {column}, which the table does not have; it has {has}")]
    NoSuchColumn { what: &'static str, column: String, has: String },
    #[error("it adds column {column}, which the table has: replace it instead")]
    Exists { column: String },
    #[error("it names column {column} twice in what it {what}: once is enough")]
    Twice { what: &'static str, column: String },
    #[error("it both hides and replaces column {column}: do one of them")]
    HiddenAndReplaced { column: String },
    #[error(
        "it hides column {column}, by which consumers find rows: replace it, which needs REPLICA IDENTITY FULL on the table"
    )]
    HiddenKey { column: String },
    #[error(
        "it replaces column {column}, by which consumers find rows; for that Postgres has to send old rows: \
         ALTER TABLE {table} REPLICA IDENTITY FULL"
    )]
    ReplacedKey { table: String, column: String },
    #[error(
        "it gives column {column} the type {type_name:?}, which there is not; there are {}",
        output_types::type_names()
    )]
    NoSuchType { column: String, type_name: String },
    #[error(
        "it replaces column {column} and keeps its type {type_name}, which a guest cannot put out: name one of {}",
        output_types::type_names()
    )]
    OwnType { column: String, type_name: String },
    #[error(
        "it adds a column called {column:?}: names have 1 to 63 bytes and no control characters"
    )]
    Name { column: String },
    #[error("the table would have {columns} columns; Postgres allows 1600")]
    TooMany { columns: usize },
}

/// A column of the answer to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerColumn {
    pub kind: Kind,
    /// The guest may leave cells untouched: replaced columns only.
    pub untouched: bool,
}

/// A column that the guest reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadColumn {
    /// Into the table's columns.
    pub index: usize,
    pub unchanged: bool,
}

/// The plan, checked and compiled for one table version.
#[derive(Clone, Debug)]
pub struct CompiledPlan {
    pub answer: PlanAnswer,
    pub table: Arc<TableVersion>,
    pub output: Arc<TableVersion>,
    pub reads: Vec<ReadColumn>,
    /// Columns whose cells the guest sees only with a value or null.
    pub reads_values: Vec<usize>,
    /// Replaced columns, then added ones.
    pub patches: Vec<PatchedColumn>,
    pub answer_columns: Vec<AnswerColumn>,
    /// One for each column of the output.
    pub cells: Vec<CellSource>,
    /// Published columns of the input, in runs. Added columns follow them.
    pub copied: Vec<Range<usize>>,
    /// For each patched column, its index in the output.
    pub places: Vec<usize>,
    pub has_key: bool,
    pub replaces_key: bool,
}

impl CompiledPlan {
    /// Checks what the guest answered for `table`.
    pub fn new(
        table: Arc<TableVersion>,
        answer: PlanAnswer,
        guest: Guest,
    ) -> Result<CompiledPlan, PlanError> {
        let columns = TableColumns { table: &table };
        let reads = answer.reads.iter().map(|(column, unchanged)| {
            Ok(ReadColumn { index: columns.column_index("reads", column)?, unchanged: *unchanged })
        });
        let reads = reads.collect::<Result<Vec<ReadColumn>, _>>()?;
        columns.check_unique("reads", answer.reads.iter().map(|(column, _)| column))?;
        let hidden = columns.hidden_columns(&answer)?;
        let replaced =
            answer.replaces.iter().map(|output| columns.replaced_column(output, &hidden));
        let mut patches = replaced.collect::<Result<Vec<PatchedColumn>, _>>()?;
        columns.check_unique("replaces", answer.replaces.iter().map(|output| &output.column))?;
        for output in &answer.adds {
            patches.push(columns.added_column(output)?);
        }
        columns.check_unique("adds", answer.adds.iter().map(|output| &output.column))?;
        let cells = cell_sources(&table, &patches, &hidden);
        if cells.len() > COLUMNS_MAX {
            return Err(PlanError::TooMany { columns: cells.len() });
        }
        let is_key = |patch: &PatchedColumn| {
            patch.replaces.is_some_and(|(input, _)| table.schema.columns[input].key)
        };
        let answer_column = |patch: &PatchedColumn| AnswerColumn {
            kind: patch.ty.kind(),
            untouched: patch.replaces.is_some(),
        };
        Ok(CompiledPlan {
            reads_values: reads.iter().filter(|read| !read.unchanged).map(|r| r.index).collect(),
            copied: input_runs(&cells),
            places: patch_places(&cells, patches.len()),
            has_key: table.columns.iter().any(|column| column.key),
            replaces_key: patches.iter().any(is_key),
            answer_columns: patches.iter().map(answer_column).collect(),
            output: Arc::new(output_table(&table, &patches, &cells, guest)),
            answer,
            table,
            reads,
            patches,
            cells,
        })
    }

    /// Whether kept rows are published as they came.
    pub fn keeps_rows(&self) -> bool {
        self.patches.is_empty() && self.cells.len() == self.table.columns.len()
    }

    /// Columns whose unchanged cells have to be looked up. If the guest filters, or failed rows are
    /// left out, a row can enter the filter: then all published columns are needed. Otherwise cells
    /// that the guest does not read may stay unchanged.
    pub fn needs_values(&self, on_error: OnGuestError) -> Vec<usize> {
        let mut needed = self.reads_values.clone();
        if self.answer.filters || on_error != OnGuestError::Halt {
            needed.extend(self.cells.iter().filter_map(|cells| cells.input()));
        }
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

struct TableColumns<'a> {
    table: &'a TableVersion,
}

impl TableColumns<'_> {
    fn columns(&self) -> &[Column] {
        &self.table.schema.columns
    }

    fn find_column(&self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }

    fn column_index(&self, what: &'static str, column: &str) -> Result<usize, PlanError> {
        self.find_column(column).ok_or_else(|| {
            let names: Vec<&str> = self.columns().iter().map(|column| &*column.name).collect();
            PlanError::NoSuchColumn { what, column: column.to_owned(), has: names.join(", ") }
        })
    }

    fn check_unique<'n>(
        &self,
        what: &'static str,
        mut names: impl Iterator<Item = &'n String>,
    ) -> Result<(), PlanError> {
        let mut seen = HashSet::new();
        match names.find(|name| !seen.insert(*name)) {
            Some(column) => Err(PlanError::Twice { what, column: column.clone() }),
            None => Ok(()),
        }
    }

    fn hidden_columns(&self, answer: &PlanAnswer) -> Result<HashSet<usize>, PlanError> {
        self.check_unique("hides", answer.hides.iter())?;
        let mut hidden = HashSet::new();
        for column in &answer.hides {
            let index = self.column_index("hides", column)?;
            if self.columns()[index].key {
                return Err(PlanError::HiddenKey { column: column.clone() });
            }
            hidden.insert(index);
        }
        Ok(hidden)
    }

    fn replaced_column(
        &self,
        output: &OutputColumn,
        hidden: &HashSet<usize>,
    ) -> Result<PatchedColumn, PlanError> {
        let column = output.column.clone();
        let index = self.column_index("replaces", &column)?;
        if hidden.contains(&index) {
            return Err(PlanError::HiddenAndReplaced { column });
        }
        let named = &self.columns()[index];
        if named.key && self.table.schema.identity != Identity::Full {
            let table = self.table.name.to_string();
            return Err(PlanError::ReplacedKey { table, column });
        }
        let own = &self.table.columns[index].ty;
        let ty = if output.type_name.trim().is_empty() {
            OutputType::from_type(own).ok_or_else(|| PlanError::OwnType {
                column: column.clone(),
                type_name: named.type_name.clone(),
            })?
        } else {
            self.named_type(output)?
        };
        // Consumers find rows by it.
        let nullable = output.nullable && !named.key;
        Ok(PatchedColumn { column, ty, nullable, replaces: Some((index, ty.can_hold(own))) })
    }

    fn added_column(&self, output: &OutputColumn) -> Result<PatchedColumn, PlanError> {
        let column = output.column.clone();
        if self.find_column(&column).is_some() {
            return Err(PlanError::Exists { column });
        }
        let length = (1..=NAME_BYTES_MAX).contains(&column.len());
        if !length || column.chars().any(char::is_control) {
            return Err(PlanError::Name { column: column.chars().take(NAME_BYTES_MAX).collect() });
        }
        let ty = self.named_type(output)?;
        Ok(PatchedColumn { column, ty, nullable: output.nullable, replaces: None })
    }

    fn named_type(&self, output: &OutputColumn) -> Result<OutputType, PlanError> {
        let OutputColumn { column, type_name, .. } = output;
        OutputType::parse(&type_name.trim().to_ascii_lowercase()).ok_or_else(|| {
            PlanError::NoSuchType {
                column: column.clone(),
                type_name: type_name.chars().take(NAME_BYTES_MAX).collect(),
            }
        })
    }
}

/// The name and the kind of a column's type as guests see them. A domain has the name of its base
/// type.
pub fn shown_type<'a>(column: &'a Column, ty: &Type) -> (&'a str, Kind) {
    let made_of = OutputType::from_type(ty).filter(|_| column.base_oid.is_some());
    (made_of.map_or(&*column.type_name, |ty| ty.name()), kinds::kind_of(ty))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
