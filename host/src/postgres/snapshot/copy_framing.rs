//! The binary format of COPY: messages of one piece → rows of a batch.
//!
//! Pure. Connections, and how much is read at a time, are not known here.

use crate::{
    postgres::PostgresError,
    rows::{
        TableVersion,
        batch::{Cell, RowBatch},
    },
};

use crate::postgres::snapshot::ctid_ranges::is_text;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// At the position of a row's field count.
const TRAILER: &[u8] = &[0xff, 0xff];

/// Decoder state of one copy.
#[derive(Debug)]
pub struct CopyFraming {
    /// Columns that were cast to text.
    texts: Vec<usize>,
    begun: bool,
    ended: bool,
}

impl CopyFraming {
    pub fn new(table: &TableVersion) -> CopyFraming {
        let texts = table.columns.iter().enumerate().filter(|(_, column)| is_text(column));
        CopyFraming { texts: texts.map(|(index, _)| index).collect(), begun: false, ended: false }
    }

    /// Whether the trailer was read.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The server sends one message per row. The header precedes the first row or the trailer.
    /// After an error the batch is unchanged.
    pub fn push(&mut self, message: &[u8], batch: &mut RowBatch) -> Result<(), PostgresError> {
        let mut row = message;
        if !self.begun {
            row = skip_header(row)?;
            self.begun = true;
        }
        if row == TRAILER {
            self.ended = true;
        } else if !row.is_empty() {
            let first = batch.cells.len();
            batch.push_copy_row(row)?;
            self.texts.iter().for_each(|&index| mark_as_text(&mut batch.cells[first + index]));
        }
        Ok(())
    }
}

fn mark_as_text(cell: &mut Cell) {
    if let Cell::Binary { start, len } = *cell {
        *cell = Cell::Text { start, len };
    }
}

/// Signature, flags, length of an extension, extension.
fn skip_header(message: &[u8]) -> Result<&[u8], PostgresError> {
    let rest = message.strip_prefix(SIGNATURE).and_then(|rest| {
        let (_flags, rest) = rest.split_first_chunk::<4>()?;
        let (extension, rest) = rest.split_first_chunk::<4>()?;
        rest.get(u32::from_be_bytes(*extension) as usize..)
    });
    rest.ok_or_else(|| {
        PostgresError::Protocol("a COPY without the header of the binary format".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_extension_are_skipped() {
        let header = [SIGNATURE, &[0, 0, 0, 0, 0, 0, 0, 2, b'x', b'y'], b"row"].concat();
        assert_eq!(skip_header(&header).unwrap(), b"row");
        assert_eq!(skip_header(&header[..header.len() - 3]).unwrap(), b"");
        for end in 0..header.len() - 3 {
            assert!(skip_header(&header[..end]).is_err(), "{end}");
        }
    }
}
