//! A guest's answer to a batch, checked: every offset, length, state and text before anything is used.
//!
//! Pure, and it never panics whatever the bytes. Whether a value fits its column's type is not known here: that
//! is an error of one row, not of the answer.

pub use crate::guest::exec::values::Value;
use crate::guest::{
    exec::values::{Data, data_of},
    plan::kinds::Kind,
};

const MAGIC: [u8; 4] = *b"WGD1";
const HEADER: usize = 24;
const DIRECTORY_ENTRY: usize = 16;
const ERROR_ENTRY: usize = 12;

const DROP: u8 = 0;
const KEEP: u8 = 1;
const ERROR: u8 = 2;

pub(super) const STATE_NULL: u8 = 0;
pub(super) const STATE_VALUE: u8 = 1;
const STATE_UNTOUCHED: u8 = 2;

/// What the answer has to look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    pub rows: usize,
    /// Replaced columns, then added ones.
    pub columns: &'a [ShapeColumn],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeColumn {
    pub kind: Kind,
    /// Rows may leave what was there: replaced columns only.
    pub untouched: bool,
}

/// An answer that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
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
    columns: Vec<Column<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Drop,
    Keep,
    /// The guest cannot handle the row, and says why.
    Error(&'a str),
}

#[derive(Debug)]
struct Column<'a> {
    /// None: untouched everywhere.
    states: Option<&'a [u8]>,
    data: Data<'a>,
}

/// Checks and reads an answer. Also the entry of the fuzz target.
pub fn decode<'a>(bytes: &'a [u8], shape: &Shape<'_>) -> Result<Decisions<'a>, Garbage> {
    let answer = Answer(bytes);
    if bytes.get(..4) != Some(&MAGIC) || bytes.len() < HEADER {
        return Err(Garbage::Magic);
    }
    let (rows, columns, errors) = (answer.u32(4), answer.u32(8), answer.u32(12));
    let count = |what, got, expected| {
        if got == expected { Ok(()) } else { Err(Garbage::Count { what, got, expected }) }
    };
    count("rows", rows, shape.rows)?;
    count("columns", columns, shape.columns.len())?;
    // The directory stands at a fixed place; a wide plan's must fit as well.
    answer.section("directory", HEADER, columns.saturating_mul(DIRECTORY_ENTRY))?;
    let verdicts = answer.section("verdicts", answer.u32(16), rows)?;
    if let Some(row) = verdicts.iter().position(|&verdict| verdict > ERROR) {
        return Err(Garbage::Verdict { row, verdict: verdicts[row] });
    }
    let errors = answer.errors(errors, rows)?;
    let columns = shape.columns.iter().enumerate().map(|(index, expected)| {
        let entry = HEADER + index * DIRECTORY_ENTRY;
        answer.column(entry, rows, expected).map_err(|what| Garbage::Column { column: index, what })
    });
    Ok(Decisions { verdicts, errors, columns: columns.collect::<Result<_, _>>()? })
}

impl<'a> Decisions<'a> {
    /// Rows are counted as they stood in the batch that was shown.
    pub fn verdict(&self, row: usize) -> Verdict<'a> {
        match self.verdicts.get(row) {
            Some(&KEEP) => Verdict::Keep,
            Some(&DROP) | None => Verdict::Drop,
            Some(_) => {
                let said = self.errors.iter().find(|(at, _)| *at == row).map(|(_, text)| *text);
                Verdict::Error(said.unwrap_or("the guest says that it cannot handle the row"))
            }
        }
    }

    pub fn all_kept(&self) -> bool {
        self.verdicts.iter().all(|&verdict| verdict == KEEP)
    }

    /// Columns are counted as in the shape.
    #[inline]
    pub fn value(&self, column: usize, row: usize) -> Value<'a> {
        self.columns.get(column).map_or(Value::Untouched, |column| column.value(row))
    }

    pub fn untouched_everywhere(&self, column: usize) -> bool {
        self.columns.get(column).is_none_or(|column| column.states.is_none())
    }
}

impl<'a> Column<'a> {
    #[inline]
    fn value(&self, row: usize) -> Value<'a> {
        match self.states.and_then(|states| states.get(row)) {
            Some(&STATE_VALUE) => self.data.value(row).unwrap_or(Value::Null),
            Some(&STATE_NULL) => Value::Null,
            _ => Value::Untouched,
        }
    }
}

/// What the guest returned.
#[derive(Clone, Copy)]
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    /// Zero beyond the end: sections are checked where they are cut.
    fn u32(self, at: usize) -> usize {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    }

    fn section(self, what: &'static str, start: usize, len: usize) -> Result<&'a [u8], Garbage> {
        let end = start.checked_add(len).filter(|_| start.is_multiple_of(8) || len == 0);
        end.and_then(|end| self.0.get(start..end)).ok_or(Garbage::Offset { what })
    }

    fn errors(self, count: usize, rows: usize) -> Result<Vec<(usize, &'a str)>, Garbage> {
        let entries = self.section("errors", self.u32(20), count.saturating_mul(ERROR_ENTRY))?;
        let (entries, _) = entries.as_chunks::<ERROR_ENTRY>();
        let read = |entry: &[u8; ERROR_ENTRY]| {
            let entry = Answer(entry);
            let (row, start, len) = (entry.u32(0), entry.u32(4), entry.u32(8));
            if row >= rows {
                return Err(Garbage::ErrorRow { row });
            }
            let text = start.checked_add(len).and_then(|end| self.0.get(start..end));
            let text = text.and_then(|text| std::str::from_utf8(text).ok());
            Ok((row, text.ok_or(Garbage::ErrorText)?))
        };
        entries.iter().map(read).collect()
    }

    fn column(
        self,
        entry: usize,
        rows: usize,
        expected: &ShapeColumn,
    ) -> Result<Column<'a>, &'static str> {
        let kind = self.0.get(entry).copied();
        let states = self.u32(entry + 4);
        if kind != Some(expected.kind as u8) {
            return Err("its kind is not that of its type in the plan");
        }
        if states == 0 && !expected.untouched && rows > 0 {
            return Err("it is added, so that every row needs a state");
        }
        if states == 0 {
            return Ok(Column { states: None, data: Data::None });
        }
        let beyond = |_| "its states or data lie beyond the end or are not at a multiple of 8";
        let states = self.section("states", states, rows).map_err(beyond)?;
        let state_max = if expected.untouched { STATE_UNTOUCHED } else { STATE_VALUE };
        if states.iter().any(|&state| state > state_max) {
            return Err("a row has a state that there is not");
        }
        let (start, len) = (self.u32(entry + 8), self.u32(entry + 12));
        let data = self.section("data", start, len).map_err(beyond)?;
        Ok(Column { states: Some(states), data: data_of(expected.kind, states, data)? })
    }
}

#[cfg(test)]
#[path = "decisions_tests.rs"]
mod tests;
