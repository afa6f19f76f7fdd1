//! A guest's answer to a batch: every offset, length, state and text is checked before it is used.
//!
//! Pure, and no input makes it panic. Whether a value fits its column's type is not known here:
//! that is an error of one row, not of the answer.

use crate::guest::{
    exec::values::{ColumnData, STATE_NULL, STATE_VALUE, check_column_data},
    plan::{AnswerColumn, output_types::GuestValue},
};

const MAGIC: [u8; 4] = *b"WGD1";
const HEADER: usize = 24;
const DIRECTORY_ENTRY: usize = 16;
const ERROR_ENTRY: usize = 12;

const DROP: u8 = 0;
const KEEP: u8 = 1;
const ERROR: u8 = 2;

const STATE_UNTOUCHED: u8 = 2;

/// The shape that the answer has to have.
#[derive(Clone, Copy, Debug)]
pub struct AnswerShape<'a> {
    pub rows: usize,
    /// Replaced columns, then added ones.
    pub columns: &'a [AnswerColumn],
}

/// Why an answer is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("it does not begin with \"WGD1\"")]
    Magic,
    #[error("it has {got} {what} where {expected} were expected")]
    Count { what: &'static str, got: usize, expected: usize },
    #[error("its {what} lie beyond its end or are not at a multiple of 8")]
    Offset { what: &'static str },
    #[error("row {row} has a verdict of {verdict}")]
    Verdict { row: usize, verdict: u8 },
    #[error("an error names row {row}, which is not in the batch")]
    ErrorRow { row: usize },
    #[error("the text of an error is not UTF-8 or lies beyond the answer's end")]
    ErrorText,
    #[error("column {column} of the answer: {what}")]
    Column { column: usize, what: &'static str },
}

/// The answer; borrows what the guest returned.
#[derive(Debug)]
pub struct Decisions<'a> {
    verdicts: &'a [u8],
    /// By row, in the guest's order.
    errors: Vec<(usize, &'a str)>,
    columns: Vec<DecidedColumn<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Drop,
    Keep,
    /// The guest cannot handle the row, for this reason.
    Error(&'a str),
}

#[derive(Debug)]
struct DecidedColumn<'a> {
    /// None: untouched everywhere.
    states: Option<&'a [u8]>,
    data: ColumnData<'a>,
}

/// Checks and reads an answer.
pub fn decode_answer<'a>(
    bytes: &'a [u8],
    shape: &AnswerShape<'_>,
) -> Result<Decisions<'a>, AnswerError> {
    let answer = AnswerBytes(bytes);
    if bytes.get(..4) != Some(&MAGIC) || bytes.len() < HEADER {
        return Err(AnswerError::Magic);
    }
    let (rows, columns, errors) = (answer.read_u32(4), answer.read_u32(8), answer.read_u32(12));
    let count = |what, got, expected| {
        if got == expected { Ok(()) } else { Err(AnswerError::Count { what, got, expected }) }
    };
    count("rows", rows, shape.rows)?;
    count("columns", columns, shape.columns.len())?;
    // The directory begins at a fixed offset; that of a wide plan must fit, too.
    answer.section("directory", HEADER, columns.saturating_mul(DIRECTORY_ENTRY))?;
    let verdicts = answer.section("verdicts", answer.read_u32(16), rows)?;
    if let Some(row) = verdicts.iter().position(|&verdict| verdict > ERROR) {
        return Err(AnswerError::Verdict { row, verdict: verdicts[row] });
    }
    let errors = answer.read_errors(errors, rows)?;
    let columns = shape.columns.iter().enumerate().map(|(index, expected)| {
        let entry = HEADER + index * DIRECTORY_ENTRY;
        answer
            .read_column(entry, rows, expected)
            .map_err(|what| AnswerError::Column { column: index, what })
    });
    Ok(Decisions { verdicts, errors, columns: columns.collect::<Result<_, _>>()? })
}

impl<'a> Decisions<'a> {
    /// The verdict on a row, by its number in the batch that the guest was shown.
    pub fn verdict(&self, row: usize) -> Verdict<'a> {
        match self.verdicts.get(row) {
            Some(&KEEP) => Verdict::Keep,
            Some(&DROP) | None => Verdict::Drop,
            Some(_) => {
                let text = self.errors.iter().find(|(at, _)| *at == row).map(|(_, text)| *text);
                Verdict::Error(text.unwrap_or("the guest says that it cannot handle the row"))
            }
        }
    }

    pub fn all_kept(&self) -> bool {
        self.verdicts.iter().all(|&verdict| verdict == KEEP)
    }

    /// The value of a column, by its number in the shape.
    #[inline]
    pub fn value(&self, column: usize, row: usize) -> GuestValue<'a> {
        self.columns.get(column).map_or(GuestValue::Untouched, |column| column.value_at(row))
    }

    pub fn untouched_everywhere(&self, column: usize) -> bool {
        self.columns.get(column).is_none_or(|column| column.states.is_none())
    }
}

impl<'a> DecidedColumn<'a> {
    #[inline]
    fn value_at(&self, row: usize) -> GuestValue<'a> {
        match self.states.and_then(|states| states.get(row)) {
            Some(&STATE_VALUE) => self.data.value_at(row).unwrap_or(GuestValue::Null),
            Some(&STATE_NULL) => GuestValue::Null,
            _ => GuestValue::Untouched,
        }
    }
}

/// The bytes that the guest returned.
#[derive(Clone, Copy)]
struct AnswerBytes<'a>(&'a [u8]);

impl<'a> AnswerBytes<'a> {
    /// Zero beyond the end: `section` checks what is cut.
    fn read_u32(self, at: usize) -> usize {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    }

    fn section(
        self,
        what: &'static str,
        start: usize,
        len: usize,
    ) -> Result<&'a [u8], AnswerError> {
        let end = start.checked_add(len).filter(|_| start.is_multiple_of(8) || len == 0);
        end.and_then(|end| self.0.get(start..end)).ok_or(AnswerError::Offset { what })
    }

    fn read_errors(self, count: usize, rows: usize) -> Result<Vec<(usize, &'a str)>, AnswerError> {
        let entries =
            self.section("errors", self.read_u32(20), count.saturating_mul(ERROR_ENTRY))?;
        let (entries, _) = entries.as_chunks::<ERROR_ENTRY>();
        let read = |entry: &[u8; ERROR_ENTRY]| {
            let entry = AnswerBytes(entry);
            let (row, start, len) = (entry.read_u32(0), entry.read_u32(4), entry.read_u32(8));
            if row >= rows {
                return Err(AnswerError::ErrorRow { row });
            }
            let text = start.checked_add(len).and_then(|end| self.0.get(start..end));
            let text = text.and_then(|text| std::str::from_utf8(text).ok());
            Ok((row, text.ok_or(AnswerError::ErrorText)?))
        };
        entries.iter().map(read).collect()
    }

    fn read_column(
        self,
        entry: usize,
        rows: usize,
        expected: &AnswerColumn,
    ) -> Result<DecidedColumn<'a>, &'static str> {
        let kind = self.0.get(entry).copied();
        let states = self.read_u32(entry + 4);
        if kind != Some(expected.kind as u8) {
            return Err("its kind is not that of its type in the plan");
        }
        if states == 0 && !expected.untouched && rows > 0 {
            return Err("it is added, so that every row needs a state");
        }
        if states == 0 {
            return Ok(DecidedColumn { states: None, data: ColumnData::None });
        }
        let beyond = |_| "its states or data lie beyond the end or are not at a multiple of 8";
        let states = self.section("states", states, rows).map_err(beyond)?;
        let state_max = if expected.untouched { STATE_UNTOUCHED } else { STATE_VALUE };
        if states.iter().any(|&state| state > state_max) {
            return Err("a row has a state that there is not");
        }
        let (start, len) = (self.read_u32(entry + 8), self.read_u32(entry + 12));
        let data = self.section("data", start, len).map_err(beyond)?;
        Ok(DecidedColumn {
            states: Some(states),
            data: check_column_data(expected.kind, states, data)?,
        })
    }
}

#[cfg(test)]
#[path = "decisions_tests.rs"]
mod tests;
