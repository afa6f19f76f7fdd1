//! Allocates all memory for a row whose `mood` is `bad`, and drops a row whose `mood` is `drop`.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Mood<'a> {
    mood: Option<&'a str>,
}

#[transform]
pub fn hoards(row: Mood<'_>) -> Verdict {
    if row.mood == Some("bad") {
        let mut hoard = vec![];
        loop {
            hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
        }
    }
    if row.mood == Some("drop") { Verdict::Drop } else { Verdict::Keep }
}
