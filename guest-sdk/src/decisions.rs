//! What a guest decides about a batch, written column by column and laid out for the host. Which Rust type may
//! go into which column is `output`'s business.

use crate::Kind;
use crate::layout::{
    DECISIONS_MAGIC, ENTRY_BYTES, HEADER_BYTES, STATE_NULL, STATE_UNCHANGED, STATE_VALUE,
    VERDICT_DROP, VERDICT_ERROR, VERDICT_KEEP,
};

/// An output column as the plan has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    pub name: String,
    pub kind: Kind,
    pub nullable: bool,
    /// Otherwise it is added.
    pub replaces: bool,
}

/// Decisions about one batch. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Decisions {
    rows: usize,
    row: usize,
    verdicts: Vec<u8>,
    errors: Vec<(usize, String)>,
    columns: Vec<Writer>,
}

/// Values of one output column.
#[derive(Debug)]
pub(crate) struct Writer {
    target: Target,
    states: Vec<u8>,
    /// Values of a fixed width, or those of any length one behind the other.
    data: Vec<u8>,
    /// For values of any length: where each row's ends.
    ends: Vec<u8>,
    /// Where the current row's value begins in `data`, if they are of any length.
    start: usize,
    touched: bool,
    /// A NULL where there may be none.
    refused: bool,
}

impl Decisions {
    pub fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        Decisions {
            columns: targets.into_iter().map(Writer::new).collect(),
            ..Decisions::default()
        }
    }

    /// Forgets the last batch.
    pub fn begin(&mut self, rows: usize) {
        (self.rows, self.row) = (rows, 0);
        self.errors.clear();
        self.verdicts.clear();
        self.verdicts.resize(rows, VERDICT_KEEP);
        self.columns.iter_mut().for_each(|column| column.begin(rows));
    }

    pub(crate) fn column(&mut self, index: usize) -> (&mut Writer, usize) {
        (&mut self.columns[index], self.row)
    }

    /// What was decided about the current row. The next row is the current one from here on.
    #[inline]
    pub fn decide(&mut self, keep: Result<bool, String>) {
        let keep = match keep {
            Ok(true) => self.check(),
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

    /// The current row is one that the guest is not asked about.
    pub fn skip(&mut self) {
        self.end_row(false);
    }

    fn end_row(&mut self, kept: bool) {
        let row = self.row;
        self.columns.iter_mut().for_each(|column| column.end_row(row, kept));
        self.row += 1;
    }

    #[inline]
    fn check(&self) -> Result<bool, String> {
        match self.columns.iter().find(|column| column.lacks_value(self.row)) {
            None => Ok(true),
            Some(column) => Err(column.complaint()),
        }
    }

    /// The buffer for the host.
    pub fn encode(&self) -> Vec<u8> {
        let size: usize = self.columns.iter().map(|c| c.size() + 64).sum();
        let mut out = Vec::with_capacity(HEADER_BYTES + size + self.rows + 64);
        let directory = HEADER_BYTES + self.columns.len() * ENTRY_BYTES;
        out.resize(directory, 0);
        let verdicts = append(&mut out, &self.verdicts);
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
        let mut text = align(out) + 12 * self.errors.len();
        let mut table = vec![0; 12 * self.errors.len()];
        for ((row, message), entry) in self.errors.iter().zip(table.as_chunks_mut::<12>().0) {
            put_numbers(entry, &[*row, text, message.len()]);
            text += message.len();
        }
        let at = append(out, &table);
        self.errors.iter().for_each(|(_, message)| out.extend_from_slice(message.as_bytes()));
        at
    }
}

impl Writer {
    fn new(target: Target) -> Self {
        let (states, data, ends) = Default::default();
        Writer { target, states, data, ends, start: 0, touched: false, refused: false }
    }

    fn begin(&mut self, rows: usize) {
        self.touched = false;
        self.refused = false;
        self.start = 0;
        self.states.clear();
        self.states.resize(rows, self.unset());
        self.data.clear();
        self.ends.clear();
        match self.target.kind.width() {
            Some(width) => self.data.resize(rows * width, 0),
            None => self.ends.resize(4 * (rows + 1), 0),
        }
    }

    fn unset(&self) -> u8 {
        if self.target.replaces { STATE_UNCHANGED } else { STATE_NULL }
    }

    #[inline]
    pub(crate) fn null(&mut self, row: usize) {
        self.clear_row(row);
        self.states[row] = STATE_NULL;
        self.refused |= !self.target.nullable;
        self.touched = true;
    }

    #[inline]
    pub(crate) fn fixed<const N: usize>(&mut self, row: usize, value: [u8; N]) {
        self.data.as_chunks_mut::<N>().0[row] = value;
        self.set(row);
    }

    /// Room for the current row's value of any length; what was there is gone.
    #[inline]
    pub(crate) fn bytes(&mut self, row: usize) -> &mut Vec<u8> {
        self.data.truncate(self.start);
        self.set(row);
        &mut self.data
    }

    #[inline]
    fn set(&mut self, row: usize) {
        self.states[row] = STATE_VALUE;
        self.refused = false;
        self.touched = true;
    }

    #[inline]
    fn lacks_value(&self, row: usize) -> bool {
        self.refused
            || !self.target.replaces && !self.target.nullable && self.states[row] != STATE_VALUE
    }

    #[cold]
    fn complaint(&self) -> String {
        let name = &self.target.name;
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
        if self.target.kind.width().is_none() {
            self.start = self.data.len();
            self.ends.as_chunks_mut::<4>().0[row + 1] = (self.start as u32).to_le_bytes();
        }
    }

    /// What was set for a row that is not kept does not leave the guest.
    fn clear_row(&mut self, row: usize) {
        self.states[row] = self.unset();
        match self.target.kind.width() {
            Some(width) => self.data[row * width..(row + 1) * width].fill(0),
            None => self.data.truncate(self.start),
        }
    }

    fn size(&self) -> usize {
        self.states.len() + self.ends.len() + self.data.len()
    }

    /// The directory's entry.
    fn append_to(&self, out: &mut Vec<u8>) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[0] = self.target.kind.number();
        if self.target.replaces && !self.touched {
            return entry;
        }
        let states = append(out, &self.states);
        let data = append(out, &self.ends);
        out.extend_from_slice(&self.data);
        put_numbers(&mut entry[4..], &[states, data, self.ends.len() + self.data.len()]);
        entry
    }
}

/// Appends what is mostly a few bytes. In wasm `memory.copy` is a call into the host, which costs more than they do.
#[inline]
pub(crate) fn extend(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        0..4 => bytes.iter().for_each(|byte| out.push(*byte)),
        4..8 => overlapping::<4>(out, bytes),
        8..=16 => overlapping::<8>(out, bytes),
        17..=32 => overlapping::<16>(out, bytes),
        _ => out.extend_from_slice(bytes),
    }
}

/// `N` bytes to twice as many: the first `N` and the last.
#[inline]
fn overlapping<const N: usize>(out: &mut Vec<u8>, bytes: &[u8]) {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) {
        let start = out.len();
        out.extend_from_slice(first);
        out.truncate(start + bytes.len() - N);
        out.extend_from_slice(last);
    }
}

/// As u32; what does not fit 32 bits is far beyond any guest's memory.
pub(crate) fn put_numbers(out: &mut [u8], numbers: &[usize]) {
    for (place, number) in out.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *place = (*number as u32).to_le_bytes();
    }
}

/// Begins a section; returns where.
pub(crate) fn append(out: &mut Vec<u8>, section: &[u8]) -> usize {
    let at = align(out);
    out.extend_from_slice(section);
    at
}

fn align(out: &mut Vec<u8>) -> usize {
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
            extend(&mut out, &bytes[..len]);
            assert_eq!((out[0], &out[1..]), (99, &bytes[..len]));
        }
    }
}
