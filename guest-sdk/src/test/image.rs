//! Decisions read back, and the row that they make of another.

use crate::batch::ColumnView;
use crate::layout::{
    DECISIONS_MAGIC, Data, Flat, Malformed, STATE_NULL, STATE_UNCHANGED, STATE_VALUE, VERDICT_DROP,
    VERDICT_ERROR, VERDICT_KEEP, malformed,
};
use crate::{Date, Kind, Plan, Table, Time, Timestamp, Uuid};

use super::{Cells, Value, check};

/// Checked decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    pub verdicts: Vec<u8>,
    /// By row.
    pub errors: Vec<(usize, String)>,
    /// One a replaced and added column: its cells, `Unchanged` where it was left alone.
    pub columns: Vec<Vec<Value>>,
}

impl Decided {
    /// `Err`: the guest broke the layout.
    pub fn decode(bytes: &[u8], table: &Table, plan: &Plan) -> Result<Decided, String> {
        let kinds = plan.output_kinds(table)?;
        decode(bytes, &kinds, plan.replaces.len())
            .map_err(|e| format!("the guest's decisions: {e}"))
    }

    /// What this row leaves as; `None` if it is dropped. `Err` is the row's error.
    pub fn row(
        &self,
        row: usize,
        cells: &Cells,
        table: &Table,
        plan: &Plan,
    ) -> Result<Option<Cells>, String> {
        match self.verdicts[row] {
            VERDICT_DROP => return Ok(None),
            VERDICT_KEEP => {}
            _ => {
                let error = self.errors.iter().find(|(at, _)| *at == row);
                return Err(
                    error.map_or("an error without a message".into(), |(_, text)| text.clone())
                );
            }
        }
        let mut leaves = Cells::new();
        for column in table.columns.iter().filter(|c| !plan.hides.contains(&c.name)) {
            leaves.insert(
                column.name.clone(),
                cells.get(&column.name).cloned().unwrap_or(Value::Null),
            );
        }
        for (output, values) in plan.replaces.iter().chain(&plan.adds).zip(&self.columns) {
            let value = &values[row];
            if *value != Value::Unchanged {
                check::value(table, output, value)?;
                leaves.insert(output.column.clone(), value.clone());
            }
        }
        Ok(Some(leaves))
    }
}

fn decode(bytes: &[u8], kinds: &[Kind], replaces: usize) -> Result<Decided, Malformed> {
    let flat = Flat::open(bytes, DECISIONS_MAGIC)?;
    let (rows, columns, errors) = (flat.number(4)?, flat.number(8)?, flat.number(12)?);
    if columns != kinds.len() {
        return malformed(format!("{columns} columns where the plan has {}", kinds.len()));
    }
    let verdicts = flat.section(flat.number(16)?, rows)?.to_vec();
    if verdicts.iter().any(|verdict| *verdict > VERDICT_ERROR) {
        return malformed("a verdict that is none");
    }
    let columns = kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| column(flat, index, *kind, index < replaces, rows));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(Decided { verdicts, errors: read_errors(flat, errors, rows)?, columns })
}

fn column(
    flat: Flat<'_>,
    index: usize,
    kind: Kind,
    replaces: bool,
    rows: usize,
) -> Result<Vec<Value>, Malformed> {
    let entry = flat.entry(index)?;
    if entry.kind != kind {
        return malformed(format!(
            "output column {index} is {:?} and should be {kind:?}",
            entry.kind
        ));
    }
    if replaces && entry.states == 0 {
        return Ok(vec![Value::Unchanged; rows]);
    }
    let states = flat.section(entry.states, rows)?;
    let column = ColumnView { states, data: Data::read(flat, entry, rows)? };
    let value = |row: usize| match states[row] {
        STATE_NULL => Ok(Value::Null),
        STATE_VALUE => Ok(value(&column.data, row)),
        STATE_UNCHANGED if replaces => Ok(Value::Unchanged),
        state => malformed(format!("state {state} in output column {index}")),
    };
    (0..rows).map(value).collect()
}

fn value(data: &Data<'_>, row: usize) -> Value {
    let int = |data: &[[u8; 8]]| i64::from_le_bytes(data[row]);
    match data {
        Data::Boolean(data) => Value::Boolean(data[row] != 0),
        Data::Integer(data) => Value::Integer(int(data)),
        Data::Float(data) => Value::Float(f64::from_le_bytes(data[row])),
        Data::Text(data) => Value::Text(data.get(row).into()),
        Data::Bytes(data) => Value::Bytes(data.get(row).into()),
        Data::Uuid(data) => Value::Uuid(Uuid(data[row])),
        Data::Timestamp(data) => Value::Timestamp(Timestamp(int(data))),
        Data::Date(data) => Value::Date(Date(int(data))),
        Data::Time(data) => Value::Time(Time(int(data))),
        Data::Packed(data) => Value::Packed(data.get(row).into()),
    }
}

fn read_errors(
    flat: Flat<'_>,
    count: usize,
    rows: usize,
) -> Result<Vec<(usize, String)>, Malformed> {
    let at = flat.number(20)?;
    let entry = |index: usize| {
        let at = index.checked_mul(12).and_then(|n| n.checked_add(at));
        let at = at.ok_or_else(|| Malformed("too many errors".into()))?;
        let (row, start, len) = (flat.number(at)?, flat.number(at + 4)?, flat.number(at + 8)?);
        let bytes = start.checked_add(len).and_then(|end| flat.0.get(start..end));
        match bytes.map(std::str::from_utf8) {
            Some(Ok(text)) if row < rows => Ok((row, text.to_owned())),
            _ => malformed(format!("error {index}")),
        }
    };
    (0..count).map(entry).collect()
}
