//! Rows of a batch → the flat buffer that a guest reads: only the columns it asked for, one after the other.
//!
//! What a value means follows the packer; what has to be printed goes through it. Nothing here knows wasm, nor
//! where the buffer goes. The layout is specified in docs/GUESTS.md.

use walgate_wire::Position;

use crate::guest::{
    exec::{
        cell_reader::Reading,
        decisions::{STATE_NULL, STATE_VALUE},
        images::Image,
    },
    plan::{
        Plan,
        kinds::{self, Kind},
    },
};
use crate::{
    encode::{PackError, Packer, RowError},
    rows::{
        Rendered, TableVersion,
        batch::{Cell, RowBatch},
    },
};

const MAGIC: [u8; 4] = *b"WGB1";
const HEADER: usize = 24;
const DIRECTORY_ENTRY: usize = 16;

const STATE_UNCHANGED: u8 = 2;
const STATE_ABSENT: u8 = 3;

/// Lays out the columns that one plan reads.
#[derive(Clone, Debug)]
pub struct Layout {
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    index: usize,
    kind: Kind,
    /// Part of the key: a key-only row has it.
    key: bool,
    read: Reading,
    renders: bool,
}

/// What is wrong, with which of the columns read, in which row.
type Failure = (usize, usize, PackError);

/// Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Buffer {
    pub bytes: Vec<u8>,
    scratch: Vec<u8>,
}

impl Layout {
    pub fn new(plan: &Plan) -> Layout {
        let column = |index: usize| {
            let column = &plan.table.columns[index];
            let packer = Packer::new(&column.ty);
            let (kind, renders) = (kinds::of(&column.ty), packer.renders());
            Column { index, kind, key: column.key, read: Reading::new(packer), renders }
        };
        Layout { columns: plan.reads.iter().map(|read| column(read.index)).collect() }
    }

    /// Whether the server may have to print what the guest reads.
    fn renders(&self) -> bool {
        self.columns.iter().any(|column| column.renders)
    }

    /// Lays out some images of a batch.
    pub fn fill(
        &self,
        batch: &RowBatch,
        images: &[Image],
        rendered: &mut Rendered,
        buffer: &mut Buffer,
    ) -> Result<(), RowError> {
        let Buffer { bytes: out, scratch } = buffer;
        out.clear();
        let directory = HEADER + self.columns.len() * DIRECTORY_ENTRY;
        out.resize(directory, 0);
        out[..4].copy_from_slice(&MAGIC);
        put(out, 4, images.len());
        put(out, 8, self.columns.len());
        put(out, 16, directory.next_multiple_of(8));
        align(out);
        out.extend(images.iter().map(|image| image.flags));
        for (at, column) in self.columns.iter().enumerate() {
            let entry = HEADER + at * DIRECTORY_ENTRY;
            let laid = match column.kind.width() {
                Some(width) => column.fixed(batch, images, width, entry, out),
                None => column.varied(batch, images, entry, out, scratch, rendered),
            };
            laid.map_err(|(row, source)| self.failed(batch, images, (at, row, source)))?;
        }
        if self.renders() && !rendered.is_complete() {
            let at = self.columns.iter().position(|column| column.renders).unwrap_or(0);
            return Err(self.failed(batch, images, (at, 0, PackError::NotRendered)));
        }
        Ok(())
    }

    fn failed(&self, batch: &RowBatch, images: &[Image], failure: Failure) -> RowError {
        let (column, row, source) = failure;
        let change = images.get(row).and_then(|image| batch.changes.get(image.of as usize));
        let position = change.map(|change| batch.position(change));
        error(&batch.table, self.columns[column].index, position, source)
    }
}

impl Column {
    /// The cell, and the state that stands for it.
    #[inline]
    fn cell<'a>(&self, batch: &'a RowBatch, image: &Image) -> (u8, Option<&'a [u8]>, bool) {
        if image.is_key_only() && !self.key {
            return (STATE_ABSENT, None, false);
        }
        match batch.cells[image.first_cell as usize + self.index] {
            Cell::Null => (STATE_NULL, None, false),
            Cell::Unchanged => (STATE_UNCHANGED, None, false),
            cell @ Cell::Binary { .. } => (STATE_VALUE, batch.cell_bytes(cell), false),
            cell @ Cell::Text { .. } => (STATE_VALUE, batch.cell_bytes(cell), true),
        }
    }

    fn fixed(
        &self,
        batch: &RowBatch,
        images: &[Image],
        width: usize,
        entry: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), (usize, PackError)> {
        let rows = images.len();
        align(out);
        let states = out.len();
        let data = (states + rows).next_multiple_of(8);
        out.resize(data + rows * width, 0);
        self.describe(out, entry, states, data, rows * width);
        let (states, values) = out[states..].split_at_mut(data - states);
        let places = states.iter_mut().zip(values.chunks_exact_mut(width));
        for (row, (image, (state, value))) in images.iter().zip(places).enumerate() {
            let (said, bytes, _) = self.cell(batch, image);
            *state = said;
            let Some(bytes) = bytes else { continue };
            match self.read {
                Reading::Bool => value[0] = u8::from(bytes != [0]),
                Reading::Uuid if bytes.len() == 16 => value.copy_from_slice(bytes),
                Reading::Uuid => return Err((row, PackError::WrongLength)),
                ref read => {
                    value.copy_from_slice(&read.word(bytes).map_err(|error| (row, error))?);
                }
            }
        }
        Ok(())
    }

    fn varied(
        &self,
        batch: &RowBatch,
        images: &[Image],
        entry: usize,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), (usize, PackError)> {
        let rows = images.len();
        align(out);
        let states = out.len();
        let ends = (states + rows).next_multiple_of(8);
        let data = ends + 4 * (rows + 1);
        out.resize(data, 0);
        for (row, image) in images.iter().enumerate() {
            let (state, bytes, printed) = self.cell(batch, image);
            out[states + row] = state;
            if let Some(bytes) = bytes {
                let appended = match self.read {
                    // As the type prints itself: what the wire carries as well.
                    Reading::Packed(_) if printed => {
                        walgate_wire::pack::str_bytes(out, bytes);
                        Ok(())
                    }
                    _ if printed => {
                        out.extend_from_slice(bytes);
                        Ok(())
                    }
                    ref read => read.append(bytes, out, scratch, rendered),
                };
                appended.map_err(|error| (row, error))?;
            }
            let end = out.len() - data;
            put(out, ends + 4 * (row + 1), end);
        }
        let len = out.len() - ends;
        self.describe(out, entry, states, ends, len);
        Ok(())
    }

    fn describe(&self, out: &mut [u8], entry: usize, states: usize, data: usize, len: usize) {
        out[entry] = self.kind as u8;
        put(out, entry + 4, states);
        put(out, entry + 8, data);
        put(out, entry + 12, len);
    }
}

/// A batch's bytes are addressed with 32 bits, and what is laid out of them stays in their order of size.
#[inline]
fn put(out: &mut [u8], at: usize, value: usize) {
    out[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

#[cold]
fn error(
    table: &TableVersion,
    index: usize,
    position: Option<Position>,
    source: PackError,
) -> RowError {
    let column = &table.schema.columns[index];
    RowError {
        table: table.name.to_string(),
        column: column.name.clone(),
        type_name: column.type_name.clone(),
        position,
        source,
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
