//! Answers with garbage for a batch in which a row says so, made without the SDK, which would not let it: `mood` is
//! `magic`, `rows`, `columns`, `errors`, `offset`, `verdict` or `nothing`. Drops rows that are `drop`.
#![cfg(target_arch = "wasm32")]

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
    walgate::guest::types::{Description, Plan, Read, Table},
};

const HEADER_BYTES: u32 = 24;
/// Where the header's directory says where the data of the one column are.
const DATA_AT: usize = 32;
const DROP: u8 = 0;
const KEEP: u8 = 1;

impl Guest for Liar {
    fn describe() -> Description {
        Description { name: "liar".to_owned(), version: "1.0.0".to_owned() }
    }

    fn plan(_: Table) -> Result<Plan, String> {
        let reads = vec![Read { column: "mood".to_owned(), unchanged: true }];
        Ok(Plan { reads, hides: vec![], replaces: vec![], adds: vec![], filters: true })
    }

    fn process(batch: Vec<u8>) -> Result<Vec<u8>, String> {
        let number = |at: usize| {
            let bytes = batch.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let (rows, data) = (number(4) as usize, number(DATA_AT) as usize);
        let texts = data + 4 * (rows + 1);
        let end = |row: usize| texts + number(data + 4 * row) as usize;
        let mood = |row: usize| batch.get(end(row)..end(row + 1)).unwrap_or_default();
        let says = |word: &str| (0..rows).any(|row| mood(row) == word.as_bytes());
        if says("nothing") {
            return Ok(vec![]);
        }
        let magic = if says("magic") { *b"WGB1" } else { *b"WGD1" };
        let told = rows as u32 + u32::from(says("rows"));
        let columns = u32::from(says("columns"));
        let errors = if says("errors") { u32::MAX } else { 0 };
        let verdicts = if says("offset") { u32::MAX - 7 } else { HEADER_BYTES };
        let verdict = |row| match mood(row) {
            b"drop" => DROP,
            b"verdict" => 77,
            _ => KEEP,
        };
        let words = [told, columns, errors, verdicts, 0].map(u32::to_le_bytes).concat();
        Ok(magic.into_iter().chain(words).chain((0..rows).map(verdict)).collect())
    }
}
