//! The rows of a table that a guest accepts, computed by the guest's own function. It runs natively
//! over the rows of the source, and is the oracle for copies of tables with a guest.
//!
//! This file does not know how the gateway shows rows to a guest, or how it applies the answer.

use walgate_guest::{
    GuestPlan, Kind, Table,
    test::{Guest, Outcome, value_to_json},
    transform::Transform,
};

use crate::{Site, oracle::quote};

/// Applies a guest to a table's recorded rows.
pub type Judge = fn(&Table, &str) -> Result<(GuestPlan, Vec<Outcome>), String>;

/// The judge for this guest.
pub fn judge<T: Transform>(
    table: &Table,
    lines: &str,
) -> Result<(GuestPlan, Vec<Outcome>), String> {
    let mut guest = Guest::<T>::new(table)?;
    let outcomes = guest.run_json(lines)?;
    Ok((guest.plan().clone(), outcomes))
}

impl Site {
    /// Writes the rows that the guest publishes of `table` into a table beside it, and returns that
    /// table's name. Rows on which the guest fails are not published. Rows outside of `asked`, a
    /// condition in SQL, are not shown to the guest.
    pub async fn run_guest_natively(&self, judge: Judge, table: &str, asked: &str) -> String {
        let described = self.describe_table(table).await;
        let cell = |column: &walgate_guest::Column| {
            let (name, text) = (&column.name, quote(&column.name));
            let cast = if column.kind == Kind::Text { "::text" } else { "" };
            format!("'{name}', {text}{cast}")
        };
        let cells: Vec<String> = described.columns.iter().map(cell).collect();
        let lines = format!(
            "select json_build_object('op', 'snapshot', 'new', json_build_object({})) from {table} where {asked}",
            cells.join(", ")
        );
        let lines: Vec<String> =
            self.database.rows(&lines).await.into_iter().flatten().flatten().collect();
        let (plan, outcomes) =
            judge(&described, &lines.join("\n")).expect("the guest suits the table");
        let leaving: Vec<serde_json::Value> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Kept(kept) => Some(
                    kept.row
                        .iter()
                        .map(|(name, value)| (name.clone(), value_to_json(value)))
                        .collect(),
                ),
                Outcome::Dropped | Outcome::Error(_) => None,
            })
            .collect();
        let (native, columns) =
            (format!("{table}_native"), published_columns(&described, &plan).join(", "));
        let leaving = serde_json::Value::from(leaving);
        self.sql(&format!(
            "drop table if exists {native}; create table {native} ({columns});
            insert into {native} select * from json_populate_recordset(null::{native}, $rows${leaving}$rows$)"
        ))
        .await;
        native
    }

    /// The table as a gateway describes it to its guest.
    async fn describe_table(&self, table: &str) -> Table {
        let columns = format!(
            "select attname, format_type(atttypid, atttypmod), attnotnull,
               exists (select from pg_index where indrelid = attrelid and indisprimary and attnum = any (indkey))
             from pg_attribute where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped order by attnum"
        );
        let mut described = Table::new(format!("public.{table}"));
        for row in self.database.rows(&columns).await {
            let row: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
            let [name, ty, not_null, key] = &row[..] else { panic!("{row:?}") };
            described = match (key.as_str(), not_null.as_str()) {
                ("t", _) => described.key(name, ty),
                (_, "t") => described.column(name, ty),
                _ => described.nullable(name, ty),
            };
        }
        let full = format!("select relreplident from pg_class where oid = '{table}'::regclass");
        if self.database.value(&full).await == "f" { described.old_rows() } else { described }
    }
}

/// The published columns, as SQL declares them.
fn published_columns(table: &Table, plan: &GuestPlan) -> Vec<String> {
    let declared = |name: &str, ty: &str| format!("{} {ty}", quote(name));
    let of_table = table.columns.iter().filter(|column| !plan.hides.contains(&column.name));
    let of_table = of_table.map(|column| {
        let replaced = plan.replaces.iter().find(|output| output.column == column.name);
        let ty = replaced.map(|output| &output.type_name).filter(|ty| !ty.is_empty());
        declared(&column.name, ty.unwrap_or(&column.type_name))
    });
    let added = plan.adds.iter().map(|output| declared(&output.column, &output.type_name));
    of_table.chain(added).collect()
}
