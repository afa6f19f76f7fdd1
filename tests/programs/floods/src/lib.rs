//! Logs far too much for a row whose `mood` is `bad` or `worse`.
//!
//! It keeps a `bad` row, panics at a `worse` one, and drops a row whose `mood` is `drop`.

use walgate_guest::prelude::*;

/// Log lines for each such row.
pub const LINES: usize = 2000;

#[derive(Columns)]
pub struct Mood<'a> {
    mood: Option<&'a str>,
}

#[transform]
pub fn floods(row: Mood<'_>) -> Verdict {
    if matches!(row.mood, Some("bad" | "worse")) {
        for line in 0..LINES {
            log::warn!("line {line} of a flood");
        }
    }
    if row.mood == Some("worse") {
        panic!("drowned");
    }
    if row.mood == Some("drop") { Verdict::Drop } else { Verdict::Keep }
}
