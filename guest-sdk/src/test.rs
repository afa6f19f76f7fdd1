//! Tests a guest natively: a table, changes as Postgres sends them, and what consumers would
//! receive.
//!
//! Rows pass through the same encoded buffers as in the gateway. This module does not know limits,
//! wasm or a live table; `walgate guest test` does.
//!
//! ```
//! use walgate_guest::prelude::*;
//! use walgate_guest::test::{Change, Guest, Outcome};
//!
//! #[derive(Columns)]
//! struct User<'a> { country: &'a str }
//!
//! #[transform]
//! fn users(user: User<'_>) -> Verdict {
//!     if user.country == "DE" { Verdict::Keep } else { Verdict::Drop }
//! }
//!
//! let table = Table::new("users").key("id", "bigint").column("country", "text").old_rows();
//! let row = |country: &str| [("id", 1.into()), ("country", country.into())];
//! let outcomes = Guest::<users>::new(&table)?.run(&[
//!     Change::insert(row("FR")),
//!     Change::update(row("DE")).with_old(row("FR")),
//! ]);
//! assert_eq!(outcomes[0], Outcome::Dropped);
//! // The row enters what the guest keeps: consumers receive an insert.
//! assert_eq!(outcomes[1].op(), Some(Op::Insert));
//! # Ok::<(), String>(())
//! ```

mod check;
mod encode;
mod image;
mod json;
mod pack;
pub mod parse;
mod recorded;
mod value;

pub use encode::{Image, encode_batch};
pub use image::Decided;
pub use json::{parse_change, parse_row, value_to_json};
pub use recorded::{is_table_line, parse_table};
pub use value::{Cells, Change, Value};

use crate::layout::{FLAG_HAS_OLD, FLAG_KEY_ONLY, FLAG_OLD};
use crate::transform::{Instance, Transform};
use crate::{GuestPlan, Op, Table};

/// A guest that was planned for a table: `Guest::<users>::new(&table)`.
///
/// `users` is the name of a function with `#[transform]`.
pub struct Guest<T: Transform> {
    table: Table,
    plan: GuestPlan,
    instance: Instance<T>,
}

impl<T: Transform> std::fmt::Debug for Guest<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(T::NAME).field("table", &self.table).field("plan", &self.plan).finish()
    }
}

/// The result of one change.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Consumers receive nothing.
    Dropped,
    /// Consumers receive a change.
    Kept(Kept),
    /// The guest failed with this message. In the gateway the table's `on_guest_error` decides.
    Error(String),
}

/// The change that consumers receive.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The operation. An update is an insert if only its new row is kept, and a delete if only its
    /// old row is kept.
    pub op: Op,
    /// The published row. For a delete, the deleted row, or its key if no more is known.
    pub row: Cells,
    /// For an update with a whole old row: the old row as consumers received it.
    pub old: Option<Cells>,
}

impl Outcome {
    /// The published row.
    ///
    /// # Panics
    /// If the row was not kept, with the reason.
    #[track_caller]
    pub fn row(&self) -> &Cells {
        match self {
            Outcome::Kept(kept) => &kept.row,
            other => panic!("the row is not kept: {other:?}"),
        }
    }

    /// The operation that consumers receive; `None` if they receive nothing.
    pub fn op(&self) -> Option<Op> {
        if let Outcome::Kept(kept) = self { Some(kept.op) } else { None }
    }
}

impl<T: Transform> Guest<T> {
    /// Plans the guest for a table.
    ///
    /// # Errors
    /// If table and guest do not fit, with the message that the operator would read.
    pub fn new(table: &Table) -> Result<Self, String> {
        let (instance, plan) = Instance::plan(table)?;
        Ok(Guest { table: table.clone(), plan, instance })
    }

    /// The guest's plan.
    pub fn plan(&self) -> &GuestPlan {
        &self.plan
    }

    /// Runs all changes as one batch. Returns one outcome per change.
    ///
    /// # Panics
    /// If a value does not fit the kind of its column. If a value that the guest reads is
    /// *unchanged*, unless the field is a [`Cell`](crate::Cell).
    #[track_caller]
    pub fn run(&mut self, changes: &[Change]) -> Vec<Outcome> {
        self.try_run(changes).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Runs a file that `walgate guest record` wrote. Returns one outcome per row.
    ///
    /// # Errors
    /// If a line is malformed, or if table and guest do not fit.
    pub fn run_recorded(lines: &str) -> Result<Vec<Outcome>, String> {
        let first = lines.lines().next().unwrap_or_default();
        let table = parse_table(first).map_err(|e| format!("line 1: {e}"))?;
        Self::new(&table)?.run_json(lines)
    }

    /// Runs changes in JSON, one object per line. Returns one outcome per change.
    ///
    /// A line looks like `{"op":"update","new":{"id":1},"old":{"id":2},"unchanged":["bio"]}`. If
    /// the first line is a table, as `walgate guest record` writes it, it is skipped.
    ///
    /// # Errors
    /// If a line is malformed. The message has its number.
    pub fn run_json(&mut self, lines: &str) -> Result<Vec<Outcome>, String> {
        let numbered = lines.lines().enumerate();
        let numbered = numbered
            .filter(|(n, line)| !(line.trim().is_empty() || *n == 0 && is_table_line(line)));
        let changes = numbered
            .map(|(n, line)| {
                parse_change(&self.table, line).map_err(|e| format!("line {}: {e}", n + 1))
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.try_run(&changes)
    }

    fn try_run(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, String> {
        let mut images = Vec::new();
        let places: Vec<_> =
            changes.iter().map(|change| place_images(change, &self.table, &mut images)).collect();
        self.check_unchanged(&images)?;
        let batch = encode_batch(&self.table, &self.plan, &images)?;
        let decided = Decided::decode(&self.instance.process(&batch)?, &self.table, &self.plan)?;
        let outcomes = changes.iter().zip(places);
        Ok(outcomes
            .map(|(change, place)| self.outcome_of(change, place, &images, &decided))
            .collect())
    }

    /// Refuses *unchanged* values that the guest cannot read. The gateway would look them up.
    fn check_unchanged(&self, images: &[Image<'_>]) -> Result<(), String> {
        for read in self.plan.reads.iter().filter(|read| !read.unchanged) {
            let unchanged =
                |image: &Image<'_>| image.cells.get(&read.column) == Some(&Value::Unchanged);
            if images.iter().any(unchanged) {
                return Err(format!(
                    "column {} is unchanged in a change, and the guest does not read it as a Cell: give the value that the gateway would look up",
                    read.column
                ));
            }
        }
        Ok(())
    }

    fn outcome_of(
        &self,
        change: &Change,
        place: ImagePlaces,
        images: &[Image<'_>],
        decided: &Decided,
    ) -> Outcome {
        let seen = |image: Option<usize>| match image {
            None => Ok(None),
            Some(index) => {
                decided.row(index, images[index].cells, &self.table, &self.plan).map(Some)
            }
        };
        let (old, new) = match (seen(place.old), seen(place.new)) {
            (Ok(old), Ok(new)) => (old, new),
            (Err(error), _) | (_, Err(error)) => return Outcome::Error(error),
        };
        let kept = |op, row, old| Outcome::Kept(Kept { op, row, old });
        match (change.op, old, new) {
            // The guest received no image: it is a delete of which only the key is known.
            (op, None, None) => kept(op, self.key_of(change), None),
            (Op::Update, Some(Some(old)), Some(Some(new))) => kept(Op::Update, new, Some(old)),
            (_, Some(Some(old)), Some(None) | None) => kept(Op::Delete, old, None),
            (Op::Update, Some(None), Some(Some(new))) => kept(Op::Insert, new, None),
            (op, None, Some(Some(new))) => kept(op, new, None),
            (Op::Update, None, Some(None)) => kept(Op::Delete, self.key_of(change), None),
            _ => Outcome::Dropped,
        }
    }

    /// The key of the row to delete: the old key, or that of the new row if the key did not change.
    fn key_of(&self, change: &Change) -> Cells {
        let from = change.old.as_ref().or(change.new.as_ref());
        let key = self.table.columns.iter().filter(|column| column.key);
        let cell = |name: &String| Some((name.clone(), from?.get(name)?.clone()));
        key.filter_map(|column| cell(&column.name)).collect()
    }
}

/// The rows of the batch that these changes form, in the order of the batch.
pub fn batch_images<'c>(table: &Table, changes: &'c [Change]) -> Vec<Image<'c>> {
    let mut images = Vec::new();
    for change in changes {
        place_images(change, table, &mut images);
    }
    images
}

/// The indexes of the images of a change in the batch, of those that the guest receives.
#[derive(Clone, Copy)]
struct ImagePlaces {
    old: Option<usize>,
    new: Option<usize>,
}

/// Appends the images of a change, as the gateway does: the old image first.
///
/// An old image that holds only the key is appended if the update changed the key.
fn place_images<'c>(change: &'c Change, table: &Table, images: &mut Vec<Image<'c>>) -> ImagePlaces {
    let op = match change.op {
        Op::Snapshot => 0,
        Op::Insert => 1,
        Op::Update => 2,
        Op::Delete => 3,
    };
    let mut place = ImagePlaces { old: None, new: None };
    let mut has_old = 0;
    if let Some(cells) = &change.old {
        let whole = table.columns.iter().all(|column| cells.contains_key(&column.name));
        if whole {
            place.old = Some(images.len());
        }
        if whole || change.new.is_some() {
            let key_only = if whole { 0 } else { FLAG_KEY_ONLY };
            images.push(Image { flags: op | FLAG_OLD | key_only, cells });
            has_old = FLAG_HAS_OLD;
        }
    }
    if let Some(cells) = &change.new {
        place.new = Some(images.len());
        images.push(Image { flags: op | has_old, cells });
    }
    place
}
