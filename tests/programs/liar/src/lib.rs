//! Answers with garbage for a batch in which a row says so: `mood` is one of the words in `lies`. Keeps `mood` as it
//! is and repeats it as `echo`; drops rows that are `drop`.
//!
//! Natively it is honest: that is what it would answer if no row asked it to lie.

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
