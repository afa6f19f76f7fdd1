//! Returns an error for a row whose `mood` is `bad`, and drops a row whose `mood` is `drop`.

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
