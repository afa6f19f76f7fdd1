//! Executes what no machine can at a row that is `bad`; drops those that are `drop`.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Mood<'a> {
    mood: Option<&'a str>,
}

#[transform]
pub fn traps(row: Mood<'_>) -> Verdict {
    if row.mood == Some("bad") {
        std::process::abort();
    }
    if row.mood == Some("drop") { Verdict::Drop } else { Verdict::Keep }
}
