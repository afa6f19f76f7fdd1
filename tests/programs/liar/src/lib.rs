//! A guest that answers with garbage where a row tells it to, made without the SDK, which would not let it: the
//! column `mood` says `rows`, `magic`, `offset` or `verdict`. It keeps every other batch as it is.
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

const HEADER_BYTES: usize = 24;
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
        let says = |word: &str| batch.windows(word.len()).any(|bytes| bytes == word.as_bytes());
        let rows = batch.get(4..8).and_then(|bytes| bytes.try_into().ok()).ok_or("no header")?;
        let rows = u32::from_le_bytes(rows);
        let told = if says("rows") { rows + 1 } else { rows };
        let verdicts: u32 = if says("offset") { u32::MAX - 8 } else { HEADER_BYTES as u32 };
        let verdict = if says("verdict") { 77 } else { KEEP };
        let magic = if says("magic") { *b"WGB1" } else { *b"WGD1" };
        let words = [told, 0, 0, verdicts, 0].map(u32::to_le_bytes).concat();
        Ok([&magic[..], &words, &vec![verdict; rows as usize]].concat())
    }
}
