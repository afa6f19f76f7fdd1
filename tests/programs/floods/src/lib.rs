//! Logs without end at a row that is `bad`, which it keeps; drops those that are `drop`.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Mood<'a> {
    mood: Option<&'a str>,
}

#[transform]
pub fn floods(row: Mood<'_>) -> Verdict {
    if row.mood == Some("bad") {
        for line in 0..2000 {
            log::warn!("line {line} of a flood");
        }
    }
    if row.mood == Some("drop") { Verdict::Drop } else { Verdict::Keep }
}
