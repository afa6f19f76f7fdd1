//! The result of a comparison, and its report.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use walgate_wire::{Caps, Reader, Schema, Value};

use crate::compare::{Difference, Kind};

/// One table.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The name in its usual form.
    pub table: String,
    pub source_rows: u64,
    pub replica_rows: u64,
    pub took: Duration,
    differs: bool,
    named: Vec<String>,
}

impl Comparison {
    pub fn new(schema: &Schema, source_rows: u64, replica_rows: u64) -> Self {
        let (table, took) = (schema.table.clone(), Duration::ZERO);
        Comparison { table, source_rows, replica_rows, took, differs: false, named: vec![] }
    }

    pub fn differ(&mut self, differences: Vec<Difference>, schema: &Schema) {
        self.differs = true;
        self.named.extend(differences.iter().map(|difference| sentence(difference, schema)));
    }

    /// Records columns that the replica lacks.
    pub fn lack(&mut self, columns: &[String]) {
        self.differs |= !columns.is_empty();
        let sentence = |column: &String| {
            format!(
                "missing in the replica: column {column}, which comes with the first row that is written after it"
            )
        };
        self.named.extend(columns.iter().map(sentence));
    }

    pub fn is_equal(&self) -> bool {
        !self.differs
    }
}

fn sentence(difference: &Difference, schema: &Schema) -> String {
    let key = if schema.key.is_empty() {
        schema.columns.iter().map(|column| &column.name).collect::<Vec<_>>()
    } else {
        schema.key.iter().collect()
    };
    let key: Vec<String> = key
        .iter()
        .zip(&difference.key)
        .map(|(name, cell)| format!("{name}={}", text(cell)))
        .collect();
    let key = key.join(" ");
    match difference.kind {
        Kind::Missing => format!("missing in the replica: {key}"),
        Kind::Extra => format!("only in the replica: {key}"),
        Kind::Different => {
            let names = difference.columns.iter().filter_map(|&index| schema.columns.get(index));
            let names: Vec<&str> = names.map(|column| column.name.as_str()).collect();
            format!("different: {key} in {}", names.join(", "))
        }
    }
}

/// A cell as text; long ones are cut.
fn text(cell: &[u8]) -> String {
    let text = match Reader::new(cell, &Caps::default()).value() {
        Ok(Value::Str(text)) => format!("{text:?}"),
        Ok(Value::Int(int)) => int.to_string(),
        Ok(Value::Bin(bytes)) => format!("\\x{}", walgate_wire::hex::encode(bytes)),
        Ok(other) => format!("{other:?}"),
        Err(_) => format!("\\x{}", walgate_wire::hex::encode(cell)),
    };
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Prints the comparison as a table, and the differences below it.
pub fn print(comparisons: &[Comparison]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["table", "rows in source", "rows in replica", "seconds", "verdict"]);
    for comparison in comparisons {
        let verdict = if comparison.is_equal() { "equal" } else { "DIFFERENT" };
        table.add_row([
            comparison.table.clone(),
            comparison.source_rows.to_string(),
            comparison.replica_rows.to_string(),
            format!("{:.2}", comparison.took.as_secs_f64()),
            verdict.to_owned(),
        ]);
    }
    for column in 1..=3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    for comparison in comparisons {
        for line in &comparison.named {
            println!("{}: {line}", comparison.table);
        }
    }
}

#[cfg(test)]
mod tests {
    use walgate_wire::{Identity, Lsn, TableName, TableState};

    use super::*;

    #[test]
    fn a_column_that_the_replica_lacks_is_a_difference() {
        let name = TableName::new("public", "t");
        let schema = Schema {
            table: name.to_string(),
            token: name.token(),
            relid: None,
            revision: 1,
            state: TableState::Live,
            columns: vec![],
            key: vec![],
            identity: Identity::Default,
            old: vec![],
            guest: None,
            lsn: Lsn(0),
            reason: None,
        };
        let mut comparison = Comparison::new(&schema, 1, 1);
        comparison.lack(&[]);
        assert!(comparison.is_equal());
        comparison.lack(&["late".to_owned()]);
        comparison.differ(vec![], &schema);
        assert!(!comparison.is_equal());
        assert!(comparison.named[0].contains("column late"), "{:?}", comparison.named);
    }
}
