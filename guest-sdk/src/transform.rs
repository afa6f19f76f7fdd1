//! What `#[transform]` makes of a function, and how it is run: told the table once, then asked row by row.
//! Whether that happens in wasm or in a test is not known here.

use std::fmt::Display;

use crate::batch::{Batch, Op};
use crate::columns::Columns;
use crate::decisions::{Decisions, Target};
use crate::layout::Malformed;
use crate::parameters::Parameters;
use crate::{Kind, Output, Plan, Read, Table};

/// Whether a row leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Keep,
    Drop,
}

/// What a guest's function may return: a [`Verdict`], or a `Result` of one whose error is this row's error.
#[diagnostic::on_unimplemented(
    message = "a transform returns Verdict or Result<Verdict, E>, not `{Self}`",
    note = "E is anything that can be displayed"
)]
pub trait Answer {
    fn answer(self) -> Result<Verdict, String>;
}

impl Answer for Verdict {
    #[inline]
    fn answer(self) -> Result<Verdict, String> {
        Ok(self)
    }
}

impl<E: Display> Answer for Result<Verdict, E> {
    #[inline]
    fn answer(self) -> Result<Verdict, String> {
        self.map_err(|error| error.to_string())
    }
}

/// What is known of a row beside its columns. A guest that wants it takes a `row: Row<User<'_>>`.
#[derive(Clone, Copy, Debug)]
pub struct Row<C> {
    op: Op,
    old_image: bool,
    old: Option<C>,
}

impl<C> Row<C> {
    pub fn op(&self) -> Op {
        self.op
    }

    /// Whether this is the row as it was before an update or delete. Such rows are judged and changed as others
    /// are: that tells whether consumers had them, and as what.
    pub fn is_old_image(&self) -> bool {
        self.old_image
    }

    /// The row as it was before the update, if Postgres sent it (REPLICA IDENTITY FULL) and it can be read.
    pub fn old(&self) -> Option<&C> {
        self.old.as_ref()
    }
}

/// The parts of a plan that do not depend on the table.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub hides: &'static [&'static str],
    pub replaces: &'static [Written],
    pub adds: &'static [Written],
    pub filters: bool,
}

/// A column that is written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub column: &'static str,
    /// Empty: a replaced column keeps its own type.
    pub type_name: &'static str,
    /// `None`: as the replaced column; an added one may be NULL.
    pub nullable: Option<bool>,
}

/// A guest. `#[transform]` implements this for a type with the name of the function.
pub trait Transform: Sized + 'static {
    const NAME: &'static str;
    const VERSION: &'static str;
    const SHAPE: Shape;
    type Parameters: Parameters;

    fn reads(table: &Table) -> Result<Vec<Read>, String>;
    fn process<'a>(
        parameters: &Self::Parameters,
        batch: &'a Batch<'a>,
        decisions: &mut Decisions,
    ) -> Result<(), Malformed>;
}

/// A guest that was told its table.
pub struct Instance<T: Transform> {
    parameters: T::Parameters,
    read_kinds: Vec<Kind>,
    decisions: Decisions,
}

impl<T: Transform> Instance<T> {
    /// `Err` is for the operator: column or parameter and what to do.
    pub fn plan(table: &Table) -> Result<(Self, Plan), String> {
        let parameters = T::Parameters::parse(table)?;
        let plan = Plan {
            reads: T::reads(table)?,
            hides: T::SHAPE.hides.iter().map(|column| (*column).to_owned()).collect(),
            replaces: T::SHAPE
                .replaces
                .iter()
                .map(|w| w.replaced(table))
                .collect::<Result<_, _>>()?,
            adds: T::SHAPE.adds.iter().map(Written::added).collect(),
            filters: T::SHAPE.filters,
        };
        plan.check(table)?;
        let kinds = plan.output_kinds(table)?;
        let outputs = plan.replaces.iter().chain(&plan.adds).zip(kinds).enumerate();
        let target = |(index, (output, kind)): (usize, (&Output, Kind))| Target {
            name: output.column.clone(),
            kind,
            nullable: output.nullable,
            replaces: index < plan.replaces.len(),
        };
        let decisions = Decisions::new(outputs.map(target));
        Ok((Instance { parameters, read_kinds: plan.read_kinds(table)?, decisions }, plan))
    }

    /// A batch in, decisions out. `Err`: the batch is not laid out as was agreed.
    pub fn process(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let batch = Batch::decode(bytes).map_err(|e| e.to_string())?;
        let kinds = batch.columns().iter().map(|column| column.data.kind());
        if !kinds.eq(self.read_kinds.iter().copied()) {
            return Err("a batch of other columns than were planned".into());
        }
        self.decisions.begin(batch.rows());
        T::process(&self.parameters, &batch, &mut self.decisions).map_err(|e| e.to_string())?;
        Ok(self.decisions.encode())
    }
}

impl Written {
    fn replaced(&self, table: &Table) -> Result<Output, String> {
        let Written { column, type_name, nullable } = *self;
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

    fn added(&self) -> Output {
        let nullable = self.nullable.unwrap_or(true);
        Output { column: self.column.into(), type_name: self.type_name.into(), nullable }
    }
}

/// One row of a batch, while a guest is asked about it.
#[derive(Debug)]
pub struct Asked<'v, 'a, C: Columns<'a>> {
    batch: &'a Batch<'a>,
    views: &'v C::Views,
    row: usize,
}

impl<'a, C: Columns<'a>> Asked<'_, 'a, C> {
    pub fn row(&self) -> Row<C> {
        let old = self.batch.old_image(self.row).filter(|old| !self.batch.is_key_only(*old));
        Row {
            op: self.batch.op(self.row),
            old_image: self.batch.is_old_image(self.row),
            old: old.and_then(|old| C::read(self.views, old).ok()),
        }
    }
}

/// Asks about every row of a batch but those of which only the key is there.
#[inline]
pub fn rows<'a, C: Columns<'a>, A: Answer>(
    batch: &'a Batch<'a>,
    decisions: &mut Decisions,
    filters: bool,
    mut ask: impl FnMut(C, &Asked<'_, 'a, C>, &mut Decisions) -> A,
) -> Result<(), Malformed> {
    let views =
        C::open(batch).ok_or_else(|| Malformed("columns of other kinds than planned".into()))?;
    for row in 0..batch.rows() {
        if batch.is_key_only(row) {
            decisions.skip();
            continue;
        }
        let asked = Asked { batch, views: &views, row };
        let verdict = match C::read(&views, row) {
            Ok(columns) => ask(columns, &asked, decisions).answer(),
            Err(error) => Err(error),
        };
        decisions.decide(match verdict {
            Ok(Verdict::Keep) => Ok(true),
            Ok(Verdict::Drop) if filters => Ok(false),
            Ok(Verdict::Drop) => Err(DROPPED.into()),
            Err(error) => Err(error),
        });
    }
    Ok(())
}

const DROPPED: &str = "the guest dropped a row and is declared as never_drops";
