//! Asserts that a replica equals its source: the same rows, column by column, in any order.
//!
//! The oracle shares no code with the programs under test. It reads both sides over SQL, and
//! [`canon`] lists once more how each type looks in a copy.

mod canon;
mod copy;
mod parse;
mod shape;
mod travels;

use walgate_wire::TableName;

pub use copy::Copy;
use shape::Shape;

use crate::{Database, Replica, Site, Target, eventually};

/// At most so many differing rows are listed.
const SHOWN_MAX: usize = 4;

impl Site {
    /// Waits until the copy is equal to the source.
    #[track_caller]
    pub fn wait_until_equal(&self, replica: &Replica, table: &str) -> impl Future<Output = ()> {
        let what = format!("{table} in {} is equal to the source", replica.target);
        eventually(what, async || self.find_differences(replica, table).await)
    }

    /// The current differences.
    pub async fn find_differences(&self, replica: &Replica, table: &str) -> Result<(), String> {
        self.find_differences_as(replica, table, table).await
    }

    /// The same for a table with another name in the copy.
    pub async fn find_differences_as(
        &self,
        replica: &Replica,
        table: &str,
        copied: &str,
    ) -> Result<(), String> {
        find_differences(&self.database, &replica.target, table, copied).await
    }
}

/// What is different at this moment between a table and its copy, which may have another name.
pub async fn find_differences(
    source: &Database,
    copy: &Target,
    table: &str,
    copied: &str,
) -> Result<(), String> {
    let name: TableName = table.parse().expect("a table name");
    let copied: TableName = copied.parse().expect("a table name");
    let copy = Copy::open(copy).await;
    let shape = Shape::load(source, &name).await;
    let columns = copy.columns(&copied).await.ok_or("there is no such table yet")?;
    shape.check_columns(&columns)?;
    let expected_count = source.value(&format!("select count(*) from {}", quoted(&name))).await;
    let count = copy.count_of(&copied).await.ok_or("there is no such table any more")?;
    if count.to_string() != expected_count {
        return Err(format!("{count} rows instead of {expected_count}"));
    }
    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
    let found =
        copy.read_rows(&copied, &columns, &shape).await.ok_or("there is no such table any more")?;
    compare_rows(&names, source_rows(source, &name, &names, &shape, &copy).await, found)
}

async fn source_rows(
    source: &Database,
    name: &TableName,
    columns: &[String],
    shape: &Shape,
    copy: &Copy,
) -> Vec<Row> {
    let list: Vec<_> = columns.iter().map(|column| copy.source_expression(shape, column)).collect();
    let sql = format!("select {} from {}", list.join(", "), quoted(name));
    let types: Vec<_> = columns.iter().map(|column| copy.ty(shape, column)).collect();
    let row = |row: Vec<Option<String>>| {
        let cells =
            row.iter().zip(&types).map(|(cell, ty)| copy.expected_text(ty, cell.as_deref()));
        cells.collect()
    };
    source.rows(&sql).await.into_iter().map(row).collect()
}

/// One canonical text for each column.
type Row = Vec<String>;

/// Compares both sides as multisets.
fn compare_rows(
    columns: &[String],
    mut expected: Vec<Row>,
    mut found: Vec<Row>,
) -> Result<(), String> {
    expected.sort();
    found.sort();
    if expected == found {
        return Ok(());
    }
    let missing = rows_only_in(&expected, &found);
    let extra = rows_only_in(&found, &expected);
    let mut report = String::new();
    for row in missing.iter().take(SHOWN_MAX) {
        // Usually the key is the first column.
        match extra.iter().find(|other| other[0] == row[0]) {
            Some(other) => {
                report += &format!("\n  row {}:", row[0]);
                let cells = columns.iter().zip(row.iter().zip(*other)).filter(|(_, (a, b))| a != b);
                cells.for_each(|(name, (a, b))| {
                    report += &format!("\n    {name}: source {}, copy {}", shorten(a), shorten(b));
                });
            }
            None => report += &format!("\n  only in the source: {}", shorten(&row.join(" | "))),
        }
    }
    let alone = extra.iter().filter(|row| missing.iter().all(|other| other[0] != row[0]));
    alone.take(SHOWN_MAX).for_each(|row| {
        report += &format!("\n  only in the copy: {}", shorten(&row.join(" | ")));
    });
    Err(report)
}

/// Both lists are sorted. Returns the rows of `these` that `those` lacks, counted with repetitions.
fn rows_only_in<'a>(these: &'a [Row], those: &[Row]) -> Vec<&'a Row> {
    let mut rest = those.iter().peekable();
    let is_missing = |row: &&Row| {
        while rest.next_if(|other| *other < *row).is_some() {}
        rest.next_if(|other| *other == *row).is_none()
    };
    these.iter().filter(is_missing).collect()
}

/// The beginning and the length.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{} … ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn quoted(name: &TableName) -> String {
    format!("{}.{}", quote(&name.schema), quote(&name.table))
}
