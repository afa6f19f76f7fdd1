//! What a guest wants of a table, and whether the table can give it. The gateway checks the same again; here
//! the messages are for whoever tests a guest.

use std::collections::HashSet;

use crate::{Kind, Table, Type};

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    pub reads: Vec<Read>,
    pub hides: Vec<String>,
    pub replaces: Vec<Output>,
    pub adds: Vec<Output>,
    /// False: a promise never to drop a row.
    pub filters: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    pub column: String,
    /// The guest can deal with cells in state *unchanged*.
    pub unchanged: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    pub column: String,
    /// Empty in `replaces`: the column keeps its own type.
    pub type_name: String,
    pub nullable: bool,
}

impl Plan {
    /// What the gateway refuses. `Err` names column and remedy.
    pub fn check(&self, table: &Table) -> Result<(), String> {
        let mut seen = HashSet::new();
        for read in &self.reads {
            exists(table, &read.column, "reads")?;
            once(&mut seen, &read.column, "reads")?;
        }
        seen.clear();
        for column in &self.hides {
            exists(table, column, "hides")?;
            once(&mut seen, column, "hides, replaces or adds")?;
            if table.find(column).is_some_and(|c| c.key) {
                return Err(format!(
                    "the guest hides the key column {column}: consumers find rows by it; replace it instead, or leave it"
                ));
            }
        }
        for output in &self.replaces {
            exists(table, &output.column, "replaces")?;
            once(&mut seen, &output.column, "hides, replaces or adds")?;
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
            once(&mut seen, column, "hides, replaces or adds")?;
            writable(column, &output.type_name)?;
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
        kind_of(output, table).map(drop)
    }

    /// Kinds of the columns read, in their order.
    pub fn read_kinds(&self, table: &Table) -> Result<Vec<Kind>, String> {
        self.reads.iter().map(|read| Ok(exists(table, &read.column, "reads")?.kind)).collect()
    }

    /// Kinds of the columns written, in their order: replaces, then adds.
    pub fn output_kinds(&self, table: &Table) -> Result<Vec<Kind>, String> {
        self.replaces.iter().chain(&self.adds).map(|output| kind_of(output, table)).collect()
    }
}

fn kind_of(output: &Output, table: &Table) -> Result<Kind, String> {
    let Output { column, type_name, .. } = output;
    if !type_name.is_empty() {
        return writable(column, type_name).map(Type::kind);
    }
    let own = &exists(table, column, "replaces")?.type_name;
    Type::kept(own).map(Type::kind).ok_or_else(|| {
        format!(
            "the guest replaces {column} and keeps its type {own}, which cannot be written: name another, \
             such as replace(\"{column}\", \"text\")"
        )
    })
}

fn exists<'t>(table: &'t Table, column: &str, does: &str) -> Result<&'t crate::Column, String> {
    table.find(column).ok_or_else(|| {
        format!("the guest {does} {column}, which is not there: {}", table.listing())
    })
}

fn once<'p>(seen: &mut HashSet<&'p str>, column: &'p str, does: &str) -> Result<(), String> {
    if seen.insert(column) {
        return Ok(());
    }
    Err(format!("the guest {does} {column} more than once"))
}

fn writable(column: &str, type_name: &str) -> Result<Type, String> {
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
        let plan = |change: fn(&mut Plan)| {
            let mut plan = Plan::default();
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
        let plan = Plan { replaces: vec![output("i", "text"), output("a", "")], ..Plan::default() };
        assert_eq!(plan.check(&table()), Ok(()));
        assert_eq!(plan.output_kinds(&table()), Ok(vec![Kind::Text, Kind::Text]));
    }
}
