//! Testing a guest natively: a table, changes as Postgres sends them, and what consumers would see. The layouts
//! are those of the gateway, encoded and decoded; limits, wasm and a live table are `walgate guest test`'s.

mod check;
mod encode;
mod image;
mod json;
mod pack;
pub mod parse;
mod recorded;
mod value;

pub use encode::{Image, encode};
pub use image::Decided;
pub use json::{change_of, json_of, row_of};
pub use recorded::{is_table, table_of};
pub use value::{Cells, Change, Value};

use crate::layout::{FLAG_HAS_OLD, FLAG_KEY_ONLY, FLAG_OLD};
use crate::transform::{Instance, Transform};
use crate::{Op, Plan, Table};

/// A guest that was told a table: `Guest::<users>::new(&table)`.
pub struct Guest<T: Transform> {
    table: Table,
    plan: Plan,
    instance: Instance<T>,
}

impl<T: Transform> std::fmt::Debug for Guest<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(T::NAME).field("table", &self.table).field("plan", &self.plan).finish()
    }
}

/// What becomes of one change.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Consumers see nothing of it.
    Dropped,
    Kept(Kept),
    /// The row failed; the table's `on_guest_error` decides.
    Error(String),
}

/// What consumers see.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// An update that enters or leaves what the guest keeps is an insert or a delete.
    pub op: Op,
    /// The row as it leaves. Of a delete: the row that is gone, or as much of it as is known.
    pub row: Cells,
    /// Of an update with the whole old row: as it left before.
    pub old: Option<Cells>,
}

impl Outcome {
    /// The row as it leaves; panics, with the reason, if it does not.
    #[track_caller]
    pub fn row(&self) -> &Cells {
        match self {
            Outcome::Kept(kept) => &kept.row,
            other => panic!("the row is not kept: {other:?}"),
        }
    }

    /// What consumers see; `None` if nothing.
    pub fn op(&self) -> Option<Op> {
        if let Outcome::Kept(kept) = self { Some(kept.op) } else { None }
    }
}

impl<T: Transform> Guest<T> {
    /// `Err`: what the operator would read, because the table does not suit the guest.
    pub fn new(table: &Table) -> Result<Self, String> {
        let (instance, plan) = Instance::plan(table)?;
        Ok(Guest { table: table.clone(), plan, instance })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// All changes as one batch; one outcome for each. Panics if the guest breaks the layouts, which it cannot
    /// if it uses `#[transform]`.
    #[track_caller]
    pub fn run(&mut self, changes: &[Change]) -> Vec<Outcome> {
        self.try_run(changes).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// A file that `walgate guest record` wrote: one outcome for each row. `Err` names the line, or is what the
    /// operator would read, because the table does not suit the guest.
    pub fn recorded(lines: &str) -> Result<Vec<Outcome>, String> {
        let first = lines.lines().next().unwrap_or_default();
        let table = table_of(first).map_err(|e| format!("line 1: {e}"))?;
        Self::new(&table)?.run_json(lines)
    }

    /// Changes from JSON, one object a line. The table that may stand before them, as `walgate guest record` writes
    /// it, is passed over. `Err` names the line.
    pub fn run_json(&mut self, lines: &str) -> Result<Vec<Outcome>, String> {
        let numbered = lines.lines().enumerate();
        let numbered =
            numbered.filter(|(n, line)| !(line.trim().is_empty() || *n == 0 && is_table(line)));
        let changes = numbered
            .map(|(n, line)| {
                change_of(&self.table, line).map_err(|e| format!("line {}: {e}", n + 1))
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.try_run(&changes)
    }

    fn try_run(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, String> {
        let mut images = Vec::new();
        let places: Vec<_> =
            changes.iter().map(|change| place(change, &self.table, &mut images)).collect();
        self.check_unchanged(&images)?;
        let batch = encode(&self.table, &self.plan, &images)?;
        let decided = Decided::decode(&self.instance.process(&batch)?, &self.table, &self.plan)?;
        let outcomes = changes.iter().zip(places);
        Ok(outcomes.map(|(change, place)| self.outcome(change, place, &images, &decided)).collect())
    }

    /// The gateway looks such values up, or does not show the row. Here nothing can be looked up.
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

    fn outcome(
        &self,
        change: &Change,
        place: Place,
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
            // Neither image was shown: a delete of which only the key is known.
            (op, None, None) => kept(op, self.key_of(change), None),
            (Op::Update, Some(Some(old)), Some(Some(new))) => kept(Op::Update, new, Some(old)),
            (_, Some(Some(old)), Some(None) | None) => kept(Op::Delete, old, None),
            (Op::Update, Some(None), Some(Some(new))) => kept(Op::Insert, new, None),
            (op, None, Some(Some(new))) => kept(op, new, None),
            (Op::Update, None, Some(None)) => kept(Op::Delete, self.key_of(change), None),
            _ => Outcome::Dropped,
        }
    }

    /// By which the row is found that goes: the old key, or the new row's where it did not change.
    fn key_of(&self, change: &Change) -> Cells {
        let from = change.old.as_ref().or(change.new.as_ref());
        let key = self.table.columns.iter().filter(|column| column.key);
        let cell = |name: &String| Some((name.clone(), from?.get(name)?.clone()));
        key.filter_map(|column| cell(&column.name)).collect()
    }
}

/// The rows of the batch that these changes make, in its order.
pub fn images<'c>(table: &Table, changes: &'c [Change]) -> Vec<Image<'c>> {
    let mut images = Vec::new();
    for change in changes {
        place(change, table, &mut images);
    }
    images
}

/// Which images of a batch belong to a change, of those that the guest is asked about.
#[derive(Clone, Copy)]
struct Place {
    old: Option<usize>,
    new: Option<usize>,
}

/// As the gateway does it: the old image first; one with nothing but the key only where the key changed.
fn place<'c>(change: &'c Change, table: &Table, images: &mut Vec<Image<'c>>) -> Place {
    let op = match change.op {
        Op::Snapshot => 0,
        Op::Insert => 1,
        Op::Update => 2,
        Op::Delete => 3,
    };
    let mut place = Place { old: None, new: None };
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
