//! The guest that runs in a gateway. It does not use the SDK, which cannot encode malformed
//! decisions.

#[allow(
    unsafe_code,
    clippy::all,
    reason = "generated: passing strings and lists to the host is done with pointers"
)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../guest-sdk/wit", world: "guest" });
    export!(Liar with_types_in self);

    pub struct Liar;
}

use bindings::{
    Liar,
    exports::walgate::guest::transform::Guest,
    walgate::guest::types::{Description, Output, Plan, Read, Table},
};

use super::DROP;

/// Offsets in batches and decisions: after a header of 24 bytes, 16 bytes per column.
const FIRST_COLUMN: usize = 24;
const SECOND_COLUMN: usize = 40;
const COLUMNS_END: usize = 56;
const TEXT: u8 = 3;
/// More than the limit of the gateway in the test.
const MUCH_BYTES: usize = 2 << 20;

impl Guest for Liar {
    fn describe() -> Description {
        Description { name: "liar".to_owned(), version: "1.0.0".to_owned() }
    }

    fn plan(_: Table) -> Result<Plan, String> {
        let output = |column: &str, ty: &str| Output {
            column: column.to_owned(),
            type_name: ty.to_owned(),
            nullable: true,
        };
        Ok(Plan {
            reads: vec![Read { column: "mood".to_owned(), unchanged: true }],
            hides: vec![],
            replaces: vec![output("mood", "")],
            adds: vec![output("echo", "text")],
            filters: true,
        })
    }

    fn process(batch: Vec<u8>) -> Result<Vec<u8>, String> {
        let moods = read_moods(&batch);
        let mut answer = Answer::honest(&moods);
        for (row, mood) in moods.iter().enumerate() {
            match *mood {
                Some(b"refuses") => return Err("will not say a word".to_owned()),
                Some(mood) => answer.corrupt(row, mood),
                None => {}
            }
        }
        Ok(answer.bytes)
    }
}

/// The values of `mood`, the only column that is read.
fn read_moods(batch: &[u8]) -> Vec<Option<&[u8]>> {
    let number = |at: usize| {
        let bytes = batch.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    };
    let rows = number(4);
    let (states, data) = (number(FIRST_COLUMN + 4), number(FIRST_COLUMN + 8));
    let end = |row: usize| data + 4 * (rows + 1) + number(data + 4 * row);
    let mood = |row: usize| batch.get(end(row)..end(row + 1));
    (0..rows).map(|row| mood(row).filter(|_| batch.get(states + row) == Some(&1))).collect()
}

/// Encoded decisions, and the offsets of their sections.
struct Answer {
    bytes: Vec<u8>,
    verdicts: usize,
    /// States of the second column.
    states: usize,
    /// Ends of the texts of the second column.
    data: usize,
    /// Texts of the second column.
    texts: usize,
    /// The ends that are stored at `data`.
    ends: Vec<usize>,
}

impl Answer {
    /// Well-formed decisions.
    fn honest(moods: &[Option<&[u8]>]) -> Answer {
        let rows = moods.len();
        let verdicts = COLUMNS_END;
        let states = (verdicts + rows).next_multiple_of(8);
        let data = (states + rows).next_multiple_of(8);
        let texts = data + 4 * (rows + 1);
        let ends = vec![0];
        let mut answer = Answer { bytes: vec![0; texts], verdicts, states, data, texts, ends };
        answer.bytes[..4].copy_from_slice(b"WGD1");
        answer.put_u32(4, rows);
        answer.put_u32(8, 2);
        answer.put_u32(16, verdicts);
        // The first column has no section of states: it is untouched in all rows.
        answer.bytes[FIRST_COLUMN] = TEXT;
        answer.bytes[SECOND_COLUMN] = TEXT;
        answer.put_u32(SECOND_COLUMN + 4, states);
        answer.put_u32(SECOND_COLUMN + 8, data);
        for (row, mood) in moods.iter().enumerate() {
            answer.set_byte(verdicts + row, u8::from(*mood != Some(DROP.as_bytes())));
            answer.set_byte(states + row, u8::from(mood.is_some()));
            answer.bytes.extend_from_slice(mood.unwrap_or_default());
            let end = answer.bytes.len() - texts;
            answer.put_u32(data + 4 * (row + 1), end);
            answer.ends.push(end);
        }
        answer.put_u32(SECOND_COLUMN + 12, answer.bytes.len() - data);
        answer
    }

    /// Corrupts the decisions as the mood of this row demands.
    fn corrupt(&mut self, row: usize, mood: &[u8]) {
        const FAR: usize = u32::MAX as usize - 7;
        match mood {
            b"magic" => self.set_byte(2, b'B'),
            b"rows" => self.put_u32(4, FAR),
            b"columns" => self.put_u32(8, 3),
            b"errors" => self.put_u32(12, FAR),
            b"offset" => self.put_u32(16, FAR),
            b"verdict" => self.set_byte(self.verdicts + row, 77),
            b"nothing" => self.bytes.clear(),
            b"much" => self.bytes.resize(MUCH_BYTES, 0),
            b"kind of replaced" => self.set_byte(FIRST_COLUMN, 1),
            b"states of replaced" => self.put_u32(FIRST_COLUMN + 4, FAR),
            b"kind of added" => self.set_byte(SECOND_COLUMN, 1),
            b"no states" => self.put_u32(SECOND_COLUMN + 4, 0),
            b"state" => self.set_byte(self.states + row, 7),
            b"data" => self.put_u32(SECOND_COLUMN + 12, FAR),
            b"ends" => self.put_u32(self.data + 4 * (row + 1), FAR),
            b"text" => self.set_byte(self.text_end(row) - 1, 0xff),
            // The layout is well-formed, but Postgres cannot store a text with NUL.
            b"zero" => self.set_byte(self.text_end(row) - 1, 0),
            _ => {}
        }
    }

    fn text_end(&self, row: usize) -> usize {
        self.texts + self.ends[row + 1]
    }

    fn set_byte(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.bytes.get_mut(at) {
            *place = byte;
        }
    }

    fn put_u32(&mut self, at: usize, number: usize) {
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&(number as u32).to_le_bytes());
        }
    }
}
