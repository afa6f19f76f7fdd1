//! Aborts at a row whose `mood` is `bad`, which traps in wasm. It drops no row.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Mood<'a> {
    mood: Option<&'a str>,
}

#[transform(never_drops)]
pub fn traps(row: Mood<'_>) -> Verdict {
    if row.mood == Some("bad") {
        std::process::abort();
    }
    Verdict::Keep
}
