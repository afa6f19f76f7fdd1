//! A guest's plan × the table → what is read, what the output looks like, and where each of its cells comes from.
//!
//! Pure. All that can be wrong with a plan is refused here, with the column and a remedy, before a row is seen.

pub mod kinds;
pub mod output_schema;
pub mod output_types;

use std::{collections::HashSet, ops::Range, sync::Arc};

use walgate_wire::{Column, Guest, Identity};

use crate::guest::{
    OnGuestError,
    exec::decisions::ShapeColumn,
    plan::{
        kinds::Kind,
        output_schema::{cells, copied, output, places},
        output_types::{OutputType, Written},
    },
};
use crate::rows::{TableVersion, Type};

/// Postgres' NAMEDATALEN: what a consumer's column can be called.
const NAME_BYTES_MAX: usize = 63;
/// Postgres' MaxHeapAttributeNumber.
const COLUMNS_MAX: usize = 1600;

/// What the guest answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Column, and whether the guest can deal with unchanged cells.
    pub reads: Vec<(String, bool)>,
    pub hides: Vec<String>,
    pub replaces: Vec<Output>,
    pub adds: Vec<Output>,
    pub filters: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
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
        output_types::names()
    )]
    NoSuchType { column: String, type_name: String },
    #[error(
        "it replaces column {column} and keeps its type {type_name}, which a guest cannot put out: name one of {}",
        output_types::names()
    )]
    OwnType { column: String, type_name: String },
    #[error(
        "it adds a column called {column:?}: names have 1 to 63 bytes and no control characters"
    )]
    Name { column: String },
    #[error("the table would have {columns} columns; Postgres allows 1600")]
    TooMany { columns: usize },
}

/// A column that the guest reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Into the table's columns.
    pub index: usize,
    pub unchanged: bool,
}

/// A column that the guest writes.
#[derive(Clone, Debug)]
pub struct Patch {
    pub column: String,
    pub ty: OutputType,
    pub nullable: bool,
    /// The column that it replaces, and whether its values can stay as they are.
    pub replaces: Option<(usize, bool)>,
}

/// Where the cells of one output column come from; indexes into the table's columns and into the patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    Input(usize),
    Replaced { input: usize, patch: usize },
    Added { patch: usize },
}

impl Cells {
    /// The column of the input that is left where the guest leaves it untouched.
    pub fn input(self) -> Option<usize> {
        match self {
            Cells::Input(input) | Cells::Replaced { input, .. } => Some(input),
            Cells::Added { .. } => None,
        }
    }

    /// The patch that is laid over it.
    pub fn patch(self) -> Option<usize> {
        match self {
            Cells::Input(_) => None,
            Cells::Replaced { patch, .. } | Cells::Added { patch } => Some(patch),
        }
    }
}

/// The plan, checked and compiled for one table version.
#[derive(Clone, Debug)]
pub struct Plan {
    pub answer: Answer,
    pub table: Arc<TableVersion>,
    pub output: Arc<TableVersion>,
    pub reads: Vec<Read>,
    /// Columns whose cells the guest only sees with a value or null.
    pub reads_values: Vec<usize>,
    /// Replaced columns, then added ones.
    pub patches: Vec<Patch>,
    pub shape: Vec<ShapeColumn>,
    /// One for each column of the output.
    pub cells: Vec<Cells>,
    /// Columns of the input that leave, in runs; those that are added follow them.
    pub copied: Vec<Range<usize>>,
    /// By patch: the column of the output that it is laid over.
    pub places: Vec<usize>,
    pub has_key: bool,
    pub replaces_key: bool,
}

impl Plan {
    /// Checks what the guest answered for `table`.
    pub fn new(table: Arc<TableVersion>, answer: Answer, guest: Guest) -> Result<Plan, PlanError> {
        let names = Names { table: &table };
        let reads = answer.reads.iter().map(|(column, unchanged)| {
            Ok(Read { index: names.index("reads", column)?, unchanged: *unchanged })
        });
        let reads = reads.collect::<Result<Vec<Read>, _>>()?;
        names.once("reads", answer.reads.iter().map(|(column, _)| column))?;
        let hidden = names.hidden(&answer)?;
        let replaced = answer.replaces.iter().map(|output| names.replaced(output, &hidden));
        let mut patches = replaced.collect::<Result<Vec<Patch>, _>>()?;
        names.once("replaces", answer.replaces.iter().map(|output| &output.column))?;
        for output in &answer.adds {
            patches.push(names.added(output)?);
        }
        names.once("adds", answer.adds.iter().map(|output| &output.column))?;
        let cells = cells(&table, &patches, &hidden);
        if cells.len() > COLUMNS_MAX {
            return Err(PlanError::TooMany { columns: cells.len() });
        }
        let is_key = |patch: &Patch| {
            patch.replaces.is_some_and(|(input, _)| table.schema.columns[input].key)
        };
        let shape = |patch: &Patch| ShapeColumn {
            kind: patch.ty.kind(),
            untouched: patch.replaces.is_some(),
        };
        Ok(Plan {
            reads_values: reads.iter().filter(|read| !read.unchanged).map(|r| r.index).collect(),
            copied: copied(&cells),
            places: places(&cells, patches.len()),
            has_key: table.columns.iter().any(|column| column.key),
            replaces_key: patches.iter().any(is_key),
            shape: patches.iter().map(shape).collect(),
            output: Arc::new(output(&table, &patches, &cells, guest)),
            answer,
            table,
            reads,
            patches,
            cells,
        })
    }

    /// Whether rows leave as they came, as long as they are kept.
    pub fn keeps_rows(&self) -> bool {
        self.patches.is_empty() && self.cells.len() == self.table.columns.len()
    }

    /// Columns whose unchanged cells have to be looked up. A row can enter where the guest filters, or where those that
    /// it fails at are left out: then it is needed whole. What leaves untouched otherwise may stay unchanged.
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

struct Names<'a> {
    table: &'a TableVersion,
}

impl Names<'_> {
    fn columns(&self) -> &[Column] {
        &self.table.schema.columns
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }

    fn index(&self, what: &'static str, column: &str) -> Result<usize, PlanError> {
        self.find(column).ok_or_else(|| {
            let names: Vec<&str> = self.columns().iter().map(|column| &*column.name).collect();
            PlanError::NoSuchColumn { what, column: column.to_owned(), has: names.join(", ") }
        })
    }

    fn once<'n>(
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

    fn hidden(&self, answer: &Answer) -> Result<HashSet<usize>, PlanError> {
        self.once("hides", answer.hides.iter())?;
        let mut hidden = HashSet::new();
        for column in &answer.hides {
            let index = self.index("hides", column)?;
            if self.columns()[index].key {
                return Err(PlanError::HiddenKey { column: column.clone() });
            }
            hidden.insert(index);
        }
        Ok(hidden)
    }

    fn replaced(&self, output: &Output, hidden: &HashSet<usize>) -> Result<Patch, PlanError> {
        let column = output.column.clone();
        let index = self.index("replaces", &column)?;
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
            OutputType::of(own).ok_or_else(|| PlanError::OwnType {
                column: column.clone(),
                type_name: named.type_name.clone(),
            })?
        } else {
            self.named_type(output)?
        };
        // Consumers find rows by it.
        let nullable = output.nullable && !named.key;
        Ok(Patch { column, ty, nullable, replaces: Some((index, ty.holds(own))) })
    }

    fn added(&self, output: &Output) -> Result<Patch, PlanError> {
        let column = output.column.clone();
        if self.find(&column).is_some() {
            return Err(PlanError::Exists { column });
        }
        let length = (1..=NAME_BYTES_MAX).contains(&column.len());
        if !length || column.chars().any(char::is_control) {
            return Err(PlanError::Name { column: column.chars().take(NAME_BYTES_MAX).collect() });
        }
        let ty = self.named_type(output)?;
        Ok(Patch { column, ty, nullable: output.nullable, replaces: None })
    }

    fn named_type(&self, output: &Output) -> Result<OutputType, PlanError> {
        let Output { column, type_name, .. } = output;
        OutputType::parse(&type_name.trim().to_ascii_lowercase()).ok_or_else(|| {
            PlanError::NoSuchType {
                column: column.clone(),
                type_name: type_name.chars().take(NAME_BYTES_MAX).collect(),
            }
        })
    }
}

/// What a guest is told of a column's type: its name, and its kind. What a domain is called says nothing, what it is made
/// of does.
pub fn told<'a>(column: &'a Column, ty: &Type) -> (&'a str, Kind) {
    let made_of = OutputType::of(ty).filter(|_| column.base_oid.is_some());
    (made_of.map_or(&*column.type_name, |ty| ty.name()), kinds::of(ty))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
