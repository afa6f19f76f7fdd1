//! Logs without end at a row that is `bad`, which it keeps, and at one that is `worse`, at which it then panics; drops
//! those that are `drop`.

use walgate_guest::prelude::*;

/// At each such row.
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
