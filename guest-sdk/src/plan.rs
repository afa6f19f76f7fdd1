//! The plan of a guest: what it reads and writes of a table, and whether the table allows it.
//!
//! The gateway checks a plan again. The messages here are for the author who tests a guest.

use std::collections::HashSet;

use crate::{Kind, Table, Type};

/// What a guest reads and writes of a table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GuestPlan {
    /// The columns that the gateway copies to the guest, in the order of the batch.
    pub reads: Vec<Read>,
    /// The columns that consumers do not receive.
    pub hides: Vec<String>,
    /// The columns that the guest can overwrite.
    pub replaces: Vec<Output>,
    /// The columns that the guest adds.
    pub adds: Vec<Output>,
    /// Whether the guest can drop rows. If false, a dropped row is an error.
    pub filters: bool,
}

/// A column that the guest reads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    /// The column's name.
    pub column: String,
    /// Whether the guest accepts cells in the state *unchanged*.
    ///
    /// If not, the gateway looks the value up.
    pub unchanged: bool,
}

/// A column that the guest writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// The column's name.
    pub column: String,
    /// The column's type. In `replaces` it may be empty: the column keeps its own type.
    pub type_name: String,
    /// Whether the guest can write NULL.
    pub nullable: bool,
}

impl GuestPlan {
    /// Checks whether `table` allows this plan, as the gateway does.
    ///
    /// # Errors
    /// The message names the column and the remedy.
    pub fn check(&self, table: &Table) -> Result<(), String> {
        let mut seen = HashSet::new();
        for read in &self.reads {
            require_column(table, &read.column, "reads")?;
            require_once(&mut seen, &read.column, "reads")?;
        }
        seen.clear();
        for column in &self.hides {
            require_column(table, column, "hides")?;
            require_once(&mut seen, column, "hides, replaces or adds")?;
            if table.find(column).is_some_and(|c| c.key) {
                return Err(format!(
                    "the guest hides the key column {column}: consumers find rows by it; replace it instead, or leave it"
                ));
            }
        }
        for output in &self.replaces {
            require_column(table, &output.column, "replaces")?;
            require_once(&mut seen, &output.column, "hides, replaces or adds")?;
            self.check_replaced(table, output)?;
        }
        for output in &self.adds {
            let column = &output.column;
            if table.find(column).is_some() {
                return Err(format!(
                    "the guest adds {column}, which {} has: replace it instead",
                    table.name
                ));
            }
            require_once(&mut seen, column, "hides, replaces or adds")?;
            require_writable(column, &output.type_name)?;
        }
        Ok(())
    }

    fn check_replaced(&self, table: &Table, output: &Output) -> Result<(), String> {
        let column = &output.column;
        let key = table.find(column).is_some_and(|c| c.key);
        if key && !table.old_rows {
            return Err(format!(
                "the guest replaces the key column {column}, which needs whole old rows: \
                 ALTER TABLE {} REPLICA IDENTITY FULL",
                table.name
            ));
        }
        output_kind(output, table).map(drop)
    }

    /// The kinds of [`GuestPlan::reads`], in their order.
    ///
    /// # Errors
    /// If the table lacks such a column.
    pub fn read_kinds(&self, table: &Table) -> Result<Vec<Kind>, String> {
        self.reads
            .iter()
            .map(|read| Ok(require_column(table, &read.column, "reads")?.kind))
            .collect()
    }

    /// The kinds of [`GuestPlan::replaces`], then of [`GuestPlan::adds`], in their order.
    ///
    /// # Errors
    /// If the table lacks a replaced column, or if a type cannot be written.
    pub fn output_kinds(&self, table: &Table) -> Result<Vec<Kind>, String> {
        self.replaces.iter().chain(&self.adds).map(|output| output_kind(output, table)).collect()
    }
}

fn output_kind(output: &Output, table: &Table) -> Result<Kind, String> {
    let Output { column, type_name, .. } = output;
    if !type_name.is_empty() {
        return require_writable(column, type_name).map(Type::kind);
    }
    let own = &require_column(table, column, "replaces")?.type_name;
    Type::of_replaced(own).map(Type::kind).ok_or_else(|| {
        format!(
            "the guest replaces {column} and keeps its type {own}, which cannot be written: name another, \
             such as replace(\"{column}\", \"text\")"
        )
    })
}

fn require_column<'t>(
    table: &'t Table,
    column: &str,
    does: &str,
) -> Result<&'t crate::Column, String> {
    table.find(column).ok_or_else(|| {
        format!("the guest {does} {column}, which is not there: {}", table.list_columns())
    })
}

fn require_once<'p>(
    seen: &mut HashSet<&'p str>,
    column: &'p str,
    does: &str,
) -> Result<(), String> {
    if seen.insert(column) {
        return Ok(());
    }
    Err(format!("the guest {does} {column} more than once"))
}

fn require_writable(column: &str, type_name: &str) -> Result<Type, String> {
    Type::parse(type_name).ok_or_else(|| {
        format!(
            "the guest writes {column} as {type_name}; it can write bool, int2, int4, int8, float4, float8, numeric, \
             text, bytea, uuid, json, jsonb, timestamptz, timestamp, date and time"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new("public.t").key("id", "bigint").column("a", "text").nullable("i", "inet")
    }

    fn output(column: &str, type_name: &str) -> Output {
        Output { column: column.into(), type_name: type_name.into(), nullable: false }
    }

    #[test]
    fn what_cannot_be_done_is_named_with_its_remedy() {
        let plan = |change: fn(&mut GuestPlan)| {
            let mut plan = GuestPlan::default();
            change(&mut plan);
            plan.check(&table()).unwrap_err()
        };
        assert!(plan(|p| p.hides.push("b".into())).contains("public.t has id, a, i"));
        assert!(plan(|p| p.hides.push("id".into())).contains("key column id"));
        assert!(plan(|p| p.replaces.push(output("id", ""))).contains("REPLICA IDENTITY FULL"));
        assert!(plan(|p| p.replaces.push(output("i", ""))).contains("replace(\"i\", \"text\")"));
        assert!(plan(|p| p.adds.push(output("a", "text"))).contains("replace it"));
        assert!(plan(|p| p.adds.push(output("b", "money"))).contains("as money"));
        let twice = plan(|p| {
            p.hides.push("a".into());
            p.replaces.push(output("a", ""));
        });
        assert!(twice.contains("more than once"));
    }

    #[test]
    fn a_plan_that_fits() {
        let plan = GuestPlan {
            replaces: vec![output("i", "text"), output("a", "")],
            ..GuestPlan::default()
        };
        assert_eq!(plan.check(&table()), Ok(()));
        assert_eq!(plan.output_kinds(&table()), Ok(vec![Kind::Text, Kind::Text]));
    }
}
