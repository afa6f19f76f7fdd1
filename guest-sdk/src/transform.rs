//! The guest that `#[transform]` generates from a function, and how it runs.
//!
//! An [`Instance`] is planned once for a table, then it processes batches row by row. This module
//! does not know whether it runs in wasm or in a native test.

use std::fmt::Display;

use crate::batch::{Batch, Op};
use crate::columns::Columns;
use crate::decisions::{Decisions, OutputColumn};
use crate::layout::Malformed;
use crate::parameters::Parameters;
use crate::{GuestPlan, Kind, Output, Read, Table};

/// Whether consumers receive a row.
///
/// ```
/// # use walgate_guest::prelude::*;
/// # #[derive(Columns)] struct User<'a> { country: &'a str }
/// #[transform]
/// fn users(user: User<'_>) -> Verdict {
///     if user.country == "DE" { Verdict::Keep } else { Verdict::Drop }
/// }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The gateway publishes the row.
    Keep,
    /// The gateway does not publish the row. If consumers have it, the gateway publishes a delete.
    Drop,
}

/// The return type of a guest's function: a [`Verdict`], or a `Result` of one.
///
/// An error fails only this row. The gateway then does what the table's `on_guest_error` sets.
#[diagnostic::on_unimplemented(
    message = "a transform returns Verdict or Result<Verdict, E>, not `{Self}`",
    note = "E is anything that can be displayed"
)]
pub trait IntoVerdict {
    /// The verdict, or the message of the row's error.
    fn into_verdict(self) -> Result<Verdict, String>;
}

impl IntoVerdict for Verdict {
    #[inline]
    fn into_verdict(self) -> Result<Verdict, String> {
        Ok(self)
    }
}

impl<E: Display> IntoVerdict for Result<Verdict, E> {
    #[inline]
    fn into_verdict(self) -> Result<Verdict, String> {
        self.map_err(|error| error.to_string())
    }
}

/// The operation of a row and its old image, for a guest that takes a `Row`.
///
/// ```
/// # use walgate_guest::prelude::*;
/// #[derive(Columns)]
/// struct Order<'a> { status: &'a str }
///
/// /// Publishes an order only while its status changes.
/// #[transform]
/// fn orders(order: Order<'_>, row: Row<Order<'_>>) -> Verdict {
///     match row.old() {
///         Some(old) if old.status == order.status => Verdict::Drop,
///         _ => Verdict::Keep,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Row<C> {
    op: Op,
    old_image: bool,
    old: Option<C>,
}

impl<C> Row<C> {
    /// The operation that changed the row.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Whether this is the old image of a row: its values before an update or a delete.
    ///
    /// The guest must treat old images like other rows. From its answer the gateway derives whether
    /// consumers have the row, and with which values.
    pub fn is_old_image(&self) -> bool {
        self.old_image
    }

    /// The row before the update.
    ///
    /// `None` if Postgres did not log it (it needs REPLICA IDENTITY FULL), or if it cannot be read.
    pub fn old(&self) -> Option<&C> {
        self.old.as_ref()
    }
}

/// The parts of a plan that do not depend on the table: the arguments of `#[transform]`.
#[derive(Clone, Copy, Debug)]
pub struct StaticPlan {
    /// The columns of `hide(…)`.
    pub hides: &'static [&'static str],
    /// The columns of `replace(…)`.
    pub replaces: &'static [WrittenColumn],
    /// The columns of `add(…)`.
    pub adds: &'static [WrittenColumn],
    /// False with `never_drops`.
    pub filters: bool,
}

/// A column that the guest writes.
#[derive(Clone, Copy, Debug)]
pub struct WrittenColumn {
    /// The column's name.
    pub column: &'static str,
    /// The column's type. Empty for a replaced column that keeps its own.
    pub type_name: &'static str,
    /// `None`: like the replaced column; an added column is nullable.
    pub nullable: Option<bool>,
}

/// A guest. `#[transform]` implements it for a type with the name of the function.
pub trait Transform: Sized + 'static {
    /// The name of the guest's package.
    const NAME: &'static str;
    /// The version of the guest's package.
    const VERSION: &'static str;
    /// The arguments of `#[transform]`.
    const STATIC_PLAN: StaticPlan;
    /// The struct of the guest's parameters; `()` for none.
    type Parameters: Parameters;

    /// The columns that the guest reads of this table.
    ///
    /// # Errors
    /// If the table lacks a column, or if its type does not suit the field.
    fn reads(table: &Table) -> Result<Vec<Read>, String>;
    /// Runs the function on each row of `batch` and writes the answers to `decisions`.
    ///
    /// # Errors
    /// If the batch has other columns than planned.
    fn process<'a>(
        parameters: &Self::Parameters,
        batch: &'a Batch<'a>,
        decisions: &mut Decisions,
    ) -> Result<(), Malformed>;
}

/// A guest that was planned for a table.
pub struct Instance<T: Transform> {
    parameters: T::Parameters,
    read_kinds: Vec<Kind>,
    decisions: Decisions,
}

impl<T: Transform> Instance<T> {
    /// Plans the guest for `table`.
    ///
    /// # Errors
    /// If table and guest do not fit. The message, for the operator, names the column or parameter
    /// and the remedy.
    pub fn plan(table: &Table) -> Result<(Self, GuestPlan), String> {
        let parameters = T::Parameters::parse(table)?;
        let plan = GuestPlan {
            reads: T::reads(table)?,
            hides: T::STATIC_PLAN.hides.iter().map(|column| (*column).to_owned()).collect(),
            replaces: T::STATIC_PLAN
                .replaces
                .iter()
                .map(|w| w.replaced_output(table))
                .collect::<Result<_, _>>()?,
            adds: T::STATIC_PLAN.adds.iter().map(WrittenColumn::added_output).collect(),
            filters: T::STATIC_PLAN.filters,
        };
        plan.check(table)?;
        let kinds = plan.output_kinds(table)?;
        let outputs = plan.replaces.iter().chain(&plan.adds).zip(kinds).enumerate();
        let column = |(index, (output, kind)): (usize, (&Output, Kind))| OutputColumn {
            name: output.column.clone(),
            kind,
            nullable: output.nullable,
            replaces: index < plan.replaces.len(),
        };
        let decisions = Decisions::new(outputs.map(column));
        Ok((Instance { parameters, read_kinds: plan.read_kinds(table)?, decisions }, plan))
    }

    /// Takes an encoded batch and returns the encoded decisions.
    ///
    /// # Errors
    /// If the batch is malformed, or has other columns than planned.
    pub fn process(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let batch = Batch::decode(bytes).map_err(|e| e.to_string())?;
        let kinds = batch.columns().iter().map(|column| column.data.kind());
        if !kinds.eq(self.read_kinds.iter().copied()) {
            return Err("a batch of other columns than were planned".into());
        }
        self.decisions.begin_batch(batch.rows());
        T::process(&self.parameters, &batch, &mut self.decisions).map_err(|e| e.to_string())?;
        Ok(self.decisions.encode())
    }
}

impl WrittenColumn {
    fn replaced_output(&self, table: &Table) -> Result<Output, String> {
        let WrittenColumn { column, type_name, nullable } = *self;
        let own = table.find(column);
        if let Some(own) = own.filter(|own| type_name.is_empty() && own.kind != Kind::Text) {
            return Err(format!(
                "the guest replaces {column}, which is {own}, by a text: name the type that it becomes, as in replace(\"{column}\", \"{own}\")",
                own = own.type_name
            ));
        }
        let nullable = nullable.unwrap_or_else(|| own.is_some_and(|own| own.nullable));
        Ok(Output { column: column.into(), type_name: type_name.into(), nullable })
    }

    fn added_output(&self) -> Output {
        let nullable = self.nullable.unwrap_or(true);
        Output { column: self.column.into(), type_name: self.type_name.into(), nullable }
    }
}

/// The row of a batch that is being transformed.
#[derive(Debug)]
pub struct RowContext<'v, 'a, C: Columns<'a>> {
    batch: &'a Batch<'a>,
    views: &'v C::Views,
    row: usize,
}

impl<'a, C: Columns<'a>> RowContext<'_, 'a, C> {
    /// The row's operation and old image, for a function that takes a [`Row`].
    pub fn row(&self) -> Row<C> {
        let old = self.batch.old_image(self.row).filter(|old| !self.batch.is_key_only(*old));
        Row {
            op: self.batch.op(self.row),
            old_image: self.batch.is_old_image(self.row),
            old: old.and_then(|old| C::read(self.views, old).ok()),
        }
    }
}

/// Transforms the rows of a batch one by one. Rows of which only the key is known are skipped.
///
/// # Errors
/// If the batch has columns of other kinds than planned.
#[inline]
pub fn process_rows<'a, C: Columns<'a>, A: IntoVerdict>(
    batch: &'a Batch<'a>,
    decisions: &mut Decisions,
    filters: bool,
    mut transform: impl FnMut(C, &RowContext<'_, 'a, C>, &mut Decisions) -> A,
) -> Result<(), Malformed> {
    let views =
        C::open(batch).ok_or_else(|| Malformed("columns of other kinds than planned".into()))?;
    for row in 0..batch.rows() {
        if batch.is_key_only(row) {
            decisions.skip_row();
            continue;
        }
        let context = RowContext { batch, views: &views, row };
        let verdict = match C::read(&views, row) {
            Ok(columns) => transform(columns, &context, decisions).into_verdict(),
            Err(error) => Err(error),
        };
        decisions.decide_row(match verdict {
            Ok(Verdict::Keep) => Ok(true),
            Ok(Verdict::Drop) if filters => Ok(false),
            Ok(Verdict::Drop) => Err(DROPPED.into()),
            Err(error) => Err(error),
        });
    }
    Ok(())
}

const DROPPED: &str = "the guest dropped a row and is declared as never_drops";
