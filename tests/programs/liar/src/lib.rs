//! Returns malformed decisions if a row's `mood` names a lie, one of those in `lies`.
//!
//! Otherwise it leaves `mood` untouched, repeats it in the added column `echo`, and drops a row
//! whose `mood` is `drop`. The native program never lies, so that tests know the honest answer.

#[cfg(target_arch = "wasm32")]
mod lies;

const DROP: &str = "drop";

#[cfg(not(target_arch = "wasm32"))]
mod honest {
    use walgate_guest::prelude::*;

    #[derive(Columns)]
    pub struct Mood<'a> {
        mood: Option<&'a str>,
    }

    #[transform(replace("mood"), add("echo", "text"))]
    pub fn liar(row: Mood<'_>, out: &mut Out<'_>) -> Verdict {
        if let Some(mood) = row.mood {
            out.echo(mood);
        }
        if row.mood == Some(super::DROP) { Verdict::Drop } else { Verdict::Keep }
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use honest::liar;
