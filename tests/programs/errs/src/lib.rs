//! Answers with an error for a row that is `bad`; drops those that are `drop`.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Mood<'a> {
    mood: Option<&'a str>,
}

#[transform]
pub fn errs(row: Mood<'_>) -> Result<Verdict, String> {
    if row.mood == Some("bad") {
        return Err("in no mood for this row".to_owned());
    }
    Ok(if row.mood == Some("drop") { Verdict::Drop } else { Verdict::Keep })
}
