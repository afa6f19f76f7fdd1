//! Tests of the decoder of answers: what a guest may write, and all that it may not.

use proptest::prelude::*;

use super::*;
use crate::guest::plan::kinds::Kind;

/// An answer as a guest would write it.
#[derive(Clone, Debug, Default)]
struct Written {
    verdicts: Vec<u8>,
    errors: Vec<(u32, String)>,
    columns: Vec<(Kind, Option<Vec<Cell>>)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Untouched,
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
}

fn put(out: &mut [u8], at: usize, value: usize) {
    out[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

fn section(out: &mut Vec<u8>) -> usize {
    out.resize(out.len().next_multiple_of(8), 0);
    out.len()
}

impl Written {
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER + DIRECTORY_ENTRY * self.columns.len()];
        out[..4].copy_from_slice(&MAGIC);
        put(&mut out, 4, self.verdicts.len());
        put(&mut out, 8, self.columns.len());
        put(&mut out, 12, self.errors.len());
        let at = section(&mut out);
        put(&mut out, 16, at);
        out.extend_from_slice(&self.verdicts);
        let at = section(&mut out);
        put(&mut out, 20, at);
        out.resize(at + ERROR_ENTRY * self.errors.len(), 0);
        for (index, (row, text)) in self.errors.iter().enumerate() {
            let (entry, start) = (at + ERROR_ENTRY * index, out.len());
            put(&mut out, entry, *row as usize);
            put(&mut out, entry + 4, start);
            put(&mut out, entry + 8, text.len());
            out.extend_from_slice(text.as_bytes());
        }
        for (index, (kind, cells)) in self.columns.iter().enumerate() {
            let entry = HEADER + DIRECTORY_ENTRY * index;
            out[entry] = *kind as u8;
            let Some(cells) = cells else { continue };
            let at = section(&mut out);
            put(&mut out, entry + 4, at);
            out.extend(cells.iter().map(|cell| match cell {
                Cell::Null => STATE_NULL,
                Cell::Untouched => STATE_UNTOUCHED,
                _ => STATE_VALUE,
            }));
            let at = section(&mut out);
            put(&mut out, entry + 8, at);
            write_cells(*kind, cells, &mut out);
            let len = out.len() - at;
            put(&mut out, entry + 12, len);
        }
        out
    }

    fn shape(&self) -> Vec<AnswerColumn> {
        self.columns.iter().map(|(kind, _)| AnswerColumn { kind: *kind, untouched: true }).collect()
    }
}

fn write_cells(kind: Kind, cells: &[Cell], out: &mut Vec<u8>) {
    let varied: Vec<&[u8]> = cells
        .iter()
        .map(|cell| match cell {
            Cell::Text(text) => text.as_bytes(),
            Cell::Bytes(bytes) => bytes,
            _ => &[],
        })
        .collect();
    let Some(width) = kind.width() else {
        let mut end = 0;
        out.extend(0u32.to_le_bytes());
        for bytes in &varied {
            end += bytes.len() as u32;
            out.extend(end.to_le_bytes());
        }
        return out.extend(varied.concat());
    };
    for (cell, bytes) in cells.iter().zip(varied) {
        let mut value = match cell {
            Cell::Boolean(value) => vec![u8::from(*value)],
            Cell::Integer(value) => value.to_le_bytes().to_vec(),
            Cell::Float(value) => value.to_le_bytes().to_vec(),
            _ => bytes.to_vec(),
        };
        value.resize(width, 0);
        out.extend(value);
    }
}

fn read(bytes: &[u8], written: &Written) -> Result<(), AnswerError> {
    let shape = written.shape();
    decode_answer(bytes, &AnswerShape { rows: written.verdicts.len(), columns: &shape }).map(|_| ())
}

fn cell(kind: Kind) -> BoxedStrategy<Cell> {
    let value = match kind {
        Kind::Boolean => any::<bool>().prop_map(Cell::Boolean).boxed(),
        Kind::Float => (-1e9..1e9).prop_map(Cell::Float).boxed(),
        Kind::Text => "\\PC{0,5}".prop_map(Cell::Text).boxed(),
        Kind::Bytes | Kind::Packed => any::<Vec<u8>>().prop_map(Cell::Bytes).boxed(),
        Kind::Uuid => any::<[u8; 16]>().prop_map(|b| Cell::Bytes(b.to_vec())).boxed(),
        _ => any::<i64>().prop_map(Cell::Integer).boxed(),
    };
    prop_oneof![1 => Just(Cell::Null), 1 => Just(Cell::Untouched), 4 => value].boxed()
}

fn written() -> impl Strategy<Value = Written> {
    let kinds = prop::collection::vec(prop::sample::select(Kind::ALL.to_vec()), 0..5);
    (0usize..9, kinds).prop_flat_map(|(rows, kinds)| {
        let columns: Vec<_> = kinds
            .into_iter()
            .map(|kind| {
                let cells = prop::collection::vec(cell(kind), rows);
                prop::option::of(cells).prop_map(move |cells| (kind, cells))
            })
            .collect();
        let errors =
            prop::collection::vec((0..rows.max(1) as u32, "\\PC{0,9}"), 0..rows.min(3) + 1);
        let errors = errors.prop_map(move |errors| if rows == 0 { vec![] } else { errors });
        (prop::collection::vec(0u8..3, rows), errors, columns)
            .prop_map(|(verdicts, errors, columns)| Written { verdicts, errors, columns })
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(written in written()) {
        let bytes = written.bytes();
        let shape = written.shape();
        let rows = written.verdicts.len();
        let read = decode_answer(&bytes, &AnswerShape { rows, columns: &shape }).unwrap();
        for (column, (_, cells)) in written.columns.iter().enumerate() {
            for row in 0..rows {
                let found = match read.value(column, row) {
                    GuestValue::Untouched => Cell::Untouched,
                    GuestValue::Null => Cell::Null,
                    GuestValue::Boolean(value) => Cell::Boolean(value),
                    GuestValue::Integer(value) => Cell::Integer(value),
                    GuestValue::Float(value) => Cell::Float(value),
                    GuestValue::Text(text) => Cell::Text(text.to_owned()),
                    GuestValue::Bytes(bytes) => Cell::Bytes(bytes.to_vec()),
                };
                let expected = cells.as_ref().map_or(Cell::Untouched, |cells| cells[row].clone());
                prop_assert_eq!(found, expected);
            }
        }
        for (row, &verdict) in written.verdicts.iter().enumerate() {
            let said = written.errors.iter().find(|(at, _)| *at as usize == row);
            match read.verdict(row) {
                Verdict::Drop => prop_assert_eq!(verdict, DROP),
                Verdict::Keep => prop_assert_eq!(verdict, KEEP),
                Verdict::Error(text) => {
                    prop_assert_eq!(verdict, ERROR);
                    prop_assert!(said.is_none_or(|(_, said)| said == text));
                }
            }
        }
    }

    /// Whatever stands there: an error or values, never a panic.
    #[test]
    fn damage_is_survived(
        written in written(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = written.bytes();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let shape = written.shape();
        let rows = written.verdicts.len();
        if let Ok(read) = decode_answer(&bytes, &AnswerShape { rows, columns: &shape }) {
            for row in 0..rows + 2 {
                read.verdict(row);
                (0..shape.len() + 1).for_each(|column| { read.value(column, row); });
            }
        }
    }

    #[test]
    fn noise_is_survived(bytes: Vec<u8>, rows in 0usize..4) {
        let columns = [AnswerColumn { kind: Kind::Text, untouched: false }];
        let mut with_magic = MAGIC.to_vec();
        with_magic.extend_from_slice(&bytes);
        for bytes in [bytes, with_magic] {
            let _ = decode_answer(&bytes, &AnswerShape { rows, columns: &columns });
        }
    }
}

fn two_texts() -> Written {
    let cells = vec![Cell::Text("ä".into()), Cell::Text("b".into())];
    Written { verdicts: vec![1, 1], errors: vec![], columns: vec![(Kind::Text, Some(cells))] }
}

#[test]
fn headers_have_to_agree() {
    let written = two_texts();
    let bytes = written.bytes();
    let damaged = |at: usize, value: usize| {
        let mut bytes = bytes.clone();
        put(&mut bytes, at, value);
        read(&bytes, &written).unwrap_err().to_string()
    };
    assert_eq!(read(b"", &written), Err(AnswerError::Magic));
    assert_eq!(damaged(0, 0), "it does not begin with \"WGD1\"");
    assert_eq!(damaged(4, 3), "it has 3 rows where 2 were expected");
    assert_eq!(damaged(8, 2), "it has 2 columns where 1 were expected");
    assert!(damaged(12, u32::MAX as usize).contains("errors lie beyond"));
    assert!(damaged(16, u32::MAX as usize).contains("verdicts lie beyond"));
    assert!(damaged(16, 41).contains("verdicts"), "not a multiple of 8");
    assert!(damaged(HEADER, 1).contains("kind"));
    assert!(damaged(HEADER + 4, 1 << 20).contains("states"));
    assert!(damaged(HEADER + 12, 1 << 20).contains("states or data"));
}

#[test]
fn contents_have_to_make_sense() {
    let problem = |written: Written| read(&written.bytes(), &written).unwrap_err().to_string();
    assert_eq!(
        problem(Written { verdicts: vec![1, 3], ..two_texts() }),
        "row 1 has a verdict of 3"
    );
    let far = Written { errors: vec![(2, "x".into())], ..two_texts() };
    assert!(problem(far).contains("names row 2"));
    let written = two_texts();
    let mut bytes = written.bytes();
    let data = u32::from_le_bytes(bytes[HEADER + 8..HEADER + 12].try_into().unwrap()) as usize;
    put(&mut bytes, data + 4, 1);
    assert!(read(&bytes, &written).unwrap_err().to_string().contains("UTF-8"), "half an ä");
    put(&mut bytes, data + 4, 9);
    assert!(read(&bytes, &written).unwrap_err().to_string().contains("ends"));
    let mut bytes = written.bytes();
    *bytes.last_mut().unwrap() = 0xff;
    assert!(read(&bytes, &written).unwrap_err().to_string().contains("UTF-8"));
    let booleans = Written {
        columns: vec![(Kind::Boolean, Some(vec![Cell::Boolean(true); 2]))],
        ..two_texts()
    };
    let mut bytes = booleans.bytes();
    *bytes.last_mut().unwrap() = 2;
    assert!(read(&bytes, &booleans).unwrap_err().to_string().contains("neither 0 nor 1"));
}

#[test]
fn added_columns_need_a_state_in_every_row() {
    let columns = [AnswerColumn { kind: Kind::Text, untouched: false }];
    let shape = AnswerShape { rows: 2, columns: &columns };
    let nowhere = Written { columns: vec![(Kind::Text, None)], ..two_texts() };
    let error = decode_answer(&nowhere.bytes(), &shape).unwrap_err().to_string();
    assert!(error.contains("it is added"), "{error}");
    let cells = vec![Cell::Untouched, Cell::Null];
    let untouched = Written { columns: vec![(Kind::Text, Some(cells))], ..two_texts() };
    let error = decode_answer(&untouched.bytes(), &shape).unwrap_err().to_string();
    assert!(error.contains("state that there is not"), "{error}");
}
