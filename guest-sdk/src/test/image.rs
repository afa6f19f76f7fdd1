//! Decodes decisions, and applies them to a row.

use crate::batch::ColumnView;
use crate::layout::{
    ColumnData, DECISIONS_MAGIC, FlatBuffer, Malformed, STATE_NULL, STATE_UNCHANGED, STATE_VALUE,
    VERDICT_DROP, VERDICT_ERROR, VERDICT_KEEP, malformed,
};
use crate::{Date, GuestPlan, Kind, Table, Time, Timestamp, Uuid};

use super::{Cells, Value, check};

/// Decoded decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// The `VERDICT_*` of [`crate::layout`] of each row.
    pub verdicts: Vec<u8>,
    /// The rows that failed, with messages.
    pub errors: Vec<(usize, String)>,
    /// The cells of each replaced and each added column; `Unchanged` if the guest did not set it.
    pub columns: Vec<Vec<Value>>,
}

impl Decided {
    /// Decodes the decisions of a guest with this plan.
    ///
    /// # Errors
    /// If the buffer does not have the layout of decisions.
    pub fn decode(bytes: &[u8], table: &Table, plan: &GuestPlan) -> Result<Decided, String> {
        let kinds = plan.output_kinds(table)?;
        decode(bytes, &kinds, plan.replaces.len())
            .map_err(|e| format!("the guest's decisions: {e}"))
    }

    /// The published row that row `row` with these cells becomes; `None` if it is dropped.
    ///
    /// # Errors
    /// The row's error, or a value that does not fit its column.
    pub fn row(
        &self,
        row: usize,
        cells: &Cells,
        table: &Table,
        plan: &GuestPlan,
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
        let mut published = Cells::new();
        for column in table.columns.iter().filter(|c| !plan.hides.contains(&c.name)) {
            published.insert(
                column.name.clone(),
                cells.get(&column.name).cloned().unwrap_or(Value::Null),
            );
        }
        for (output, values) in plan.replaces.iter().chain(&plan.adds).zip(&self.columns) {
            let value = &values[row];
            if *value != Value::Unchanged {
                check::check_value(table, output, value)?;
                published.insert(output.column.clone(), value.clone());
            }
        }
        Ok(Some(published))
    }
}

fn decode(bytes: &[u8], kinds: &[Kind], replaces: usize) -> Result<Decided, Malformed> {
    let flat = FlatBuffer::open(bytes, DECISIONS_MAGIC)?;
    let (rows, columns, errors) = (flat.u32_at(4)?, flat.u32_at(8)?, flat.u32_at(12)?);
    if columns != kinds.len() {
        return malformed(format!("{columns} columns where the plan has {}", kinds.len()));
    }
    let verdicts = flat.section(flat.u32_at(16)?, rows)?.to_vec();
    if verdicts.iter().any(|verdict| *verdict > VERDICT_ERROR) {
        return malformed("a verdict that is none");
    }
    let columns = kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| decode_column(flat, index, *kind, index < replaces, rows));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(Decided { verdicts, errors: read_errors(flat, errors, rows)?, columns })
}

fn decode_column(
    flat: FlatBuffer<'_>,
    index: usize,
    kind: Kind,
    replaces: bool,
    rows: usize,
) -> Result<Vec<Value>, Malformed> {
    let entry = flat.directory_entry(index)?;
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
    let column = ColumnView { states, data: ColumnData::read(flat, entry, rows)? };
    let value = |row: usize| match states[row] {
        STATE_NULL => Ok(Value::Null),
        STATE_VALUE => Ok(decode_value(&column.data, row)),
        STATE_UNCHANGED if replaces => Ok(Value::Unchanged),
        state => malformed(format!("state {state} in output column {index}")),
    };
    (0..rows).map(value).collect()
}

fn decode_value(data: &ColumnData<'_>, row: usize) -> Value {
    let int = |data: &[[u8; 8]]| i64::from_le_bytes(data[row]);
    match data {
        ColumnData::Boolean(data) => Value::Boolean(data[row] != 0),
        ColumnData::Integer(data) => Value::Integer(int(data)),
        ColumnData::Float(data) => Value::Float(f64::from_le_bytes(data[row])),
        ColumnData::Text(data) => Value::Text(data.get(row).into()),
        ColumnData::Bytes(data) => Value::Bytes(data.get(row).into()),
        ColumnData::Uuid(data) => Value::Uuid(Uuid(data[row])),
        ColumnData::Timestamp(data) => Value::Timestamp(Timestamp(int(data))),
        ColumnData::Date(data) => Value::Date(Date(int(data))),
        ColumnData::Time(data) => Value::Time(Time(int(data))),
        ColumnData::Packed(data) => Value::Packed(data.get(row).into()),
    }
}

fn read_errors(
    flat: FlatBuffer<'_>,
    count: usize,
    rows: usize,
) -> Result<Vec<(usize, String)>, Malformed> {
    let at = flat.u32_at(20)?;
    let entry = |index: usize| {
        let at = index.checked_mul(12).and_then(|n| n.checked_add(at));
        let at = at.ok_or_else(|| Malformed("too many errors".into()))?;
        let (row, start, len) = (flat.u32_at(at)?, flat.u32_at(at + 4)?, flat.u32_at(at + 8)?);
        let bytes = start.checked_add(len).and_then(|end| flat.0.get(start..end));
        match bytes.map(std::str::from_utf8) {
            Some(Ok(text)) if row < rows => Ok((row, text.to_owned())),
            _ => malformed(format!("error {index}")),
        }
    };
    (0..count).map(entry).collect()
}
