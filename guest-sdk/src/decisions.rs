//! The decisions of a guest about a batch: verdicts, values by column, and errors.
//!
//! They are encoded for the gateway. This module does not know which Rust type fits which column;
//! `output` does.

use crate::Kind;
use crate::layout::{
    DECISIONS_MAGIC, ENTRY_BYTES, HEADER_BYTES, STATE_NULL, STATE_UNCHANGED, STATE_VALUE,
    VERDICT_DROP, VERDICT_ERROR, VERDICT_KEEP,
};

/// A column that the guest writes, as planned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutputColumn {
    /// The column's name.
    pub name: String,
    /// The kind of its values.
    pub kind: Kind,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// Whether the guest replaces the column. If not, it adds the column.
    pub replaces: bool,
}

/// The decisions about a batch. The buffers are reused from batch to batch.
#[derive(Debug, Default)]
pub struct Decisions {
    rows: usize,
    /// The current row.
    row: usize,
    verdicts: Vec<u8>,
    errors: Vec<(usize, String)>,
    columns: Vec<ColumnWriter>,
}

/// The values of an output column.
#[derive(Debug)]
pub(crate) struct ColumnWriter {
    column: OutputColumn,
    states: Vec<u8>,
    /// The values. Those of a fixed width are indexed by row, the others are appended.
    data: Vec<u8>,
    /// For values of variable length: the end of each row's value.
    ends: Vec<u8>,
    /// For values of variable length: the start of the current row's value in `data`.
    start: usize,
    /// Whether the column was set in any row of the batch.
    touched: bool,
    /// Whether the current row has a NULL in a column that is NOT NULL.
    refused: bool,
}

impl Decisions {
    /// Decisions for the output columns of a plan: the replaced ones, then the added ones.
    pub fn new(columns: impl IntoIterator<Item = OutputColumn>) -> Self {
        Decisions {
            columns: columns.into_iter().map(ColumnWriter::new).collect(),
            ..Decisions::default()
        }
    }

    /// Starts a batch of `rows` rows. The first row becomes the current row.
    pub fn begin_batch(&mut self, rows: usize) {
        self.rows = rows;
        self.row = 0;
        self.errors.clear();
        self.verdicts.clear();
        self.verdicts.resize(rows, VERDICT_KEEP);
        self.columns.iter_mut().for_each(|column| column.begin_batch(rows));
    }

    pub(crate) fn column(&mut self, index: usize) -> (&mut ColumnWriter, usize) {
        (&mut self.columns[index], self.row)
    }

    /// Decides whether to keep the current row, or fails it. The next row becomes the current one.
    #[inline]
    pub fn decide_row(&mut self, keep: Result<bool, String>) {
        let keep = match keep {
            Ok(true) => self.check_row(),
            other => other,
        };
        let kept = matches!(keep, Ok(true));
        self.verdicts[self.row] = match keep {
            Ok(true) => VERDICT_KEEP,
            Ok(false) => VERDICT_DROP,
            Err(error) => {
                self.errors.push((self.row, error));
                VERDICT_ERROR
            }
        };
        self.end_row(kept);
    }

    /// Leaves the current row undecided: its key alone is known. The next row becomes the current
    /// one.
    pub fn skip_row(&mut self) {
        self.end_row(false);
    }

    fn end_row(&mut self, kept: bool) {
        let row = self.row;
        self.columns.iter_mut().for_each(|column| column.end_row(row, kept));
        self.row += 1;
    }

    #[inline]
    fn check_row(&self) -> Result<bool, String> {
        match self.columns.iter().find(|column| column.lacks_value(self.row)) {
            None => Ok(true),
            Some(column) => Err(column.missing_value_error()),
        }
    }

    /// The encoded decisions.
    pub fn encode(&self) -> Vec<u8> {
        let size: usize = self.columns.iter().map(|c| c.encoded_bytes() + 64).sum();
        let mut out = Vec::with_capacity(HEADER_BYTES + size + self.rows + 64);
        let directory = HEADER_BYTES + self.columns.len() * ENTRY_BYTES;
        out.resize(directory, 0);
        let verdicts = append_section(&mut out, &self.verdicts);
        for (index, column) in self.columns.iter().enumerate() {
            let entry = column.append_to(&mut out);
            let at = HEADER_BYTES + index * ENTRY_BYTES;
            out[at..at + ENTRY_BYTES].copy_from_slice(&entry);
        }
        let errors = self.append_errors(&mut out);
        out[..4].copy_from_slice(&DECISIONS_MAGIC);
        let numbers = [self.rows, self.columns.len(), self.errors.len(), verdicts, errors];
        put_numbers(&mut out[4..HEADER_BYTES], &numbers);
        out
    }

    fn append_errors(&self, out: &mut Vec<u8>) -> usize {
        let mut text = pad_to_8(out) + 12 * self.errors.len();
        let mut table = vec![0; 12 * self.errors.len()];
        for ((row, message), entry) in self.errors.iter().zip(table.as_chunks_mut::<12>().0) {
            put_numbers(entry, &[*row, text, message.len()]);
            text += message.len();
        }
        let at = append_section(out, &table);
        self.errors.iter().for_each(|(_, message)| out.extend_from_slice(message.as_bytes()));
        at
    }
}

impl ColumnWriter {
    fn new(column: OutputColumn) -> Self {
        let (states, data, ends) = Default::default();
        ColumnWriter { column, states, data, ends, start: 0, touched: false, refused: false }
    }

    fn begin_batch(&mut self, rows: usize) {
        self.touched = false;
        self.refused = false;
        self.start = 0;
        self.states.clear();
        self.states.resize(rows, self.unset_state());
        self.data.clear();
        self.ends.clear();
        match self.column.kind.width() {
            Some(width) => self.data.resize(rows * width, 0),
            None => self.ends.resize(4 * (rows + 1), 0),
        }
    }

    fn unset_state(&self) -> u8 {
        if self.column.replaces { STATE_UNCHANGED } else { STATE_NULL }
    }

    #[inline]
    pub(crate) fn set_null(&mut self, row: usize) {
        self.clear_row(row);
        self.states[row] = STATE_NULL;
        self.refused |= !self.column.nullable;
        self.touched = true;
    }

    #[inline]
    pub(crate) fn set_fixed<const N: usize>(&mut self, row: usize, value: [u8; N]) {
        self.data.as_chunks_mut::<N>().0[row] = value;
        self.mark_set(row);
    }

    /// Starts a value of variable length for the current row. It replaces an earlier value.
    #[inline]
    pub(crate) fn begin_bytes(&mut self, row: usize) -> &mut Vec<u8> {
        self.data.truncate(self.start);
        self.mark_set(row);
        &mut self.data
    }

    #[inline]
    fn mark_set(&mut self, row: usize) {
        self.states[row] = STATE_VALUE;
        self.refused = false;
        self.touched = true;
    }

    #[inline]
    fn lacks_value(&self, row: usize) -> bool {
        self.refused
            || !self.column.replaces && !self.column.nullable && self.states[row] != STATE_VALUE
    }

    #[cold]
    fn missing_value_error(&self) -> String {
        let name = &self.column.name;
        format!(
            "the guest left NULL in column {name}, which is NOT NULL: set a value, or declare it nullable"
        )
    }

    #[inline]
    fn end_row(&mut self, row: usize, kept: bool) {
        if !kept {
            self.clear_row(row);
        }
        self.refused = false;
        if self.column.kind.width().is_none() {
            self.start = self.data.len();
            self.ends.as_chunks_mut::<4>().0[row + 1] = (self.start as u32).to_le_bytes();
        }
    }

    /// Removes the value of a row, so that values of rows that are not kept do not leave the guest.
    fn clear_row(&mut self, row: usize) {
        self.states[row] = self.unset_state();
        match self.column.kind.width() {
            Some(width) => self.data[row * width..(row + 1) * width].fill(0),
            None => self.data.truncate(self.start),
        }
    }

    fn encoded_bytes(&self) -> usize {
        self.states.len() + self.ends.len() + self.data.len()
    }

    /// Appends the sections of the column and returns its directory entry.
    fn append_to(&self, out: &mut Vec<u8>) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[0] = self.column.kind.number();
        if self.column.replaces && !self.touched {
            return entry;
        }
        let states = append_section(out, &self.states);
        let data = append_section(out, &self.ends);
        out.extend_from_slice(&self.data);
        put_numbers(&mut entry[4..], &[states, data, self.ends.len() + self.data.len()]);
        entry
    }
}

/// Appends bytes, fast for a few of them.
///
/// In wasm `memory.copy` is a call into the host, which takes longer than copying a few bytes.
#[inline]
pub(crate) fn append_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        0..4 => bytes.iter().for_each(|byte| out.push(*byte)),
        4..8 => append_overlapping::<4>(out, bytes),
        8..=16 => append_overlapping::<8>(out, bytes),
        17..=32 => append_overlapping::<16>(out, bytes),
        _ => out.extend_from_slice(bytes),
    }
}

/// Appends `N` to 2`N` bytes by copying the first `N` and the last `N` of them.
#[inline]
fn append_overlapping<const N: usize>(out: &mut Vec<u8>, bytes: &[u8]) {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) {
        let start = out.len();
        out.extend_from_slice(first);
        out.truncate(start + bytes.len() - N);
        out.extend_from_slice(last);
    }
}

/// Writes numbers as u32. Every number fits, because the memory of a guest has 32-bit addresses.
pub(crate) fn put_numbers(out: &mut [u8], numbers: &[usize]) {
    for (place, number) in out.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *place = (*number as u32).to_le_bytes();
    }
}

/// Appends a section and returns its offset.
pub(crate) fn append_section(out: &mut Vec<u8>, section: &[u8]) -> usize {
    let at = pad_to_8(out);
    out.extend_from_slice(section);
    at
}

fn pad_to_8(out: &mut Vec<u8>) -> usize {
    out.resize(out.len().next_multiple_of(8), 0);
    out.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_are_appended() {
        let bytes: Vec<u8> = (0..70).collect();
        for len in 0..bytes.len() {
            let mut out = vec![99];
            append_bytes(&mut out, &bytes[..len]);
            assert_eq!((out[0], &out[1..]), (99, &bytes[..len]));
        }
    }
}
