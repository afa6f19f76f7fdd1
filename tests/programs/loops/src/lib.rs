//! Loops forever at a row whose `mood` is `bad`, and drops a row whose `mood` is `drop`.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Mood<'a> {
    mood: Option<&'a str>,
}

#[transform]
pub fn loops(row: Mood<'_>) -> Verdict {
    if row.mood == Some("bad") {
        loop {
            std::hint::black_box(());
        }
    }
    if row.mood == Some("drop") { Verdict::Drop } else { Verdict::Keep }
}
