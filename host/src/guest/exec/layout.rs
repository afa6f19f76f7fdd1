//! Rows of a batch → the flat buffer that a guest reads: the columns it asked for, one after
//! another.
//!
//! Values have the meaning that the packer gives them; texts are printed by it. Wasm, and where the
//! buffer goes, is not known here. docs/GUESTS.md specifies the layout.

use walgate_wire::Position;

use crate::guest::{
    exec::{
        cell_reader::CellReader,
        images::Image,
        values::{STATE_NULL, STATE_VALUE},
    },
    plan::{
        CompiledPlan,
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
    columns: Vec<LayoutColumn>,
}

#[derive(Clone, Debug)]
struct LayoutColumn {
    index: usize,
    kind: Kind,
    /// Part of the key: a key-only row has it.
    key: bool,
    read: CellReader,
    renders: bool,
}

/// Column among those that are read, row, and why the cell cannot be shown.
type CellFailure = (usize, usize, PackError);

/// The buffer of an instance, reused from batch to batch.
#[derive(Debug, Default)]
pub struct GuestBuffer {
    pub bytes: Vec<u8>,
    scratch: Vec<u8>,
}

impl Layout {
    pub fn new(plan: &CompiledPlan) -> Layout {
        let column = |index: usize| {
            let column = &plan.table.columns[index];
            let packer = Packer::new(&column.ty);
            let (kind, renders) = (kinds::kind_of(&column.ty), packer.renders());
            LayoutColumn { index, kind, key: column.key, read: CellReader::new(packer), renders }
        };
        Layout { columns: plan.reads.iter().map(|read| column(read.index)).collect() }
    }

    /// Whether the server may have to print what the guest reads.
    fn renders(&self) -> bool {
        self.columns.iter().any(|column| column.renders)
    }

    /// Lays out some images of a batch.
    pub fn fill_buffer(
        &self,
        batch: &RowBatch,
        images: &[Image],
        rendered: &mut Rendered,
        buffer: &mut GuestBuffer,
    ) -> Result<(), RowError> {
        let GuestBuffer { bytes: out, scratch } = buffer;
        out.clear();
        let directory = HEADER + self.columns.len() * DIRECTORY_ENTRY;
        out.resize(directory, 0);
        out[..4].copy_from_slice(&MAGIC);
        put_u32(out, 4, images.len());
        put_u32(out, 8, self.columns.len());
        put_u32(out, 16, directory.next_multiple_of(8));
        align_to_8(out);
        out.extend(images.iter().map(|image| image.flags));
        for (at, column) in self.columns.iter().enumerate() {
            let entry = HEADER + at * DIRECTORY_ENTRY;
            let laid = match column.kind.width() {
                Some(width) => column.lay_fixed(batch, images, width, entry, out),
                None => column.lay_varying(batch, images, entry, out, scratch, rendered),
            };
            laid.map_err(|(row, source)| self.row_error(batch, images, (at, row, source)))?;
        }
        if self.renders() && !rendered.is_complete() {
            let at = self.columns.iter().position(|column| column.renders).unwrap_or(0);
            return Err(self.row_error(batch, images, (at, 0, PackError::NotRendered)));
        }
        Ok(())
    }

    fn row_error(&self, batch: &RowBatch, images: &[Image], failure: CellFailure) -> RowError {
        let (column, row, source) = failure;
        let change =
            images.get(row).and_then(|image| batch.changes.get(image.change_index as usize));
        let position = change.map(|change| batch.position(change));
        row_error(&batch.table, self.columns[column].index, position, source)
    }
}

impl LayoutColumn {
    /// State and bytes of a cell, and whether they are text that Postgres printed.
    #[inline]
    fn read_cell<'a>(&self, batch: &'a RowBatch, image: &Image) -> (u8, Option<&'a [u8]>, bool) {
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

    fn lay_fixed(
        &self,
        batch: &RowBatch,
        images: &[Image],
        width: usize,
        entry: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), (usize, PackError)> {
        let rows = images.len();
        align_to_8(out);
        let states = out.len();
        let data = (states + rows).next_multiple_of(8);
        out.resize(data + rows * width, 0);
        self.write_entry(out, entry, states, data, rows * width);
        let (states, values) = out[states..].split_at_mut(data - states);
        let places = states.iter_mut().zip(values.chunks_exact_mut(width));
        for (row, (image, (state, value))) in images.iter().zip(places).enumerate() {
            let (found, bytes, _) = self.read_cell(batch, image);
            *state = found;
            let Some(bytes) = bytes else { continue };
            match self.read {
                CellReader::Bool => value[0] = u8::from(bytes != [0]),
                CellReader::Uuid if bytes.len() == 16 => value.copy_from_slice(bytes),
                CellReader::Uuid => return Err((row, PackError::WrongLength)),
                ref read => {
                    value.copy_from_slice(&read.read_word(bytes).map_err(|error| (row, error))?);
                }
            }
        }
        Ok(())
    }

    fn lay_varying(
        &self,
        batch: &RowBatch,
        images: &[Image],
        entry: usize,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), (usize, PackError)> {
        let rows = images.len();
        align_to_8(out);
        let states = out.len();
        let ends = (states + rows).next_multiple_of(8);
        let data = ends + 4 * (rows + 1);
        out.resize(data, 0);
        for (row, image) in images.iter().enumerate() {
            let (state, bytes, printed) = self.read_cell(batch, image);
            out[states + row] = state;
            if let Some(bytes) = bytes {
                let appended = match self.read {
                    // As the type prints itself, as on the wire.
                    CellReader::Packed(_) if printed => {
                        walgate_wire::pack::str_bytes(out, bytes);
                        Ok(())
                    }
                    _ if printed => {
                        out.extend_from_slice(bytes);
                        Ok(())
                    }
                    ref read => read.append_value(bytes, out, scratch, rendered),
                };
                appended.map_err(|error| (row, error))?;
            }
            let end = out.len() - data;
            put_u32(out, ends + 4 * (row + 1), end);
        }
        let len = out.len() - ends;
        self.write_entry(out, entry, states, ends, len);
        Ok(())
    }

    /// Writes the column's entry in the directory.
    fn write_entry(&self, out: &mut [u8], entry: usize, states: usize, data: usize, len: usize) {
        out[entry] = self.kind as u8;
        put_u32(out, entry + 4, states);
        put_u32(out, entry + 8, data);
        put_u32(out, entry + 12, len);
    }
}

/// A batch addresses its bytes with 32 bits, and the buffer is about as large as the batch.
#[inline]
fn put_u32(out: &mut [u8], at: usize, value: usize) {
    out[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

fn align_to_8(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

#[cold]
fn row_error(
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
