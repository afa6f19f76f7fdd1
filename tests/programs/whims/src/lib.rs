//! Filters, fails and redacts as its parameters say: one program for any filter.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Whimsical<'a> {
    id: i64,
    n: Option<i32>,
    t: Option<&'a str>,
}

/// Rows with `n` modulo `of` below `below` are meant by what is said of them.
#[derive(Parameters)]
pub struct Whims {
    of: i32,
    /// These leave.
    kept_below: i32,
    /// With these the guest can do nothing.
    failed_below: i32,
    /// The text of these is masked …
    masked_below: i32,
    /// … or of these gone.
    blanked_below: i32,
    /// Rows without a number leave.
    #[parameter(default = "true")]
    null_leaves: bool,
    /// Rows with a longer text do not leave.
    longest: Option<usize>,
}

#[transform(hide("secret"), replace("t"), add("total", "int8"))]
pub fn whims(row: Whimsical<'_>, whims: &Whims, out: &mut Out<'_>) -> Result<Verdict, String> {
    // Another remainder for each rule: they meet in every combination.
    let below = |turn: i32, below: i32| {
        row.n.is_some_and(|n| (n.wrapping_mul(7).wrapping_add(turn)).rem_euclid(whims.of) < below)
    };
    if below(1, whims.failed_below) {
        return Err(format!("on a whim: {:?}", row.n));
    }
    let too_long = row.t.zip(whims.longest).is_some_and(|(text, longest)| text.len() > longest);
    let admitted = row.n.map_or(whims.null_leaves, |_| below(2, whims.kept_below));
    if too_long || !admitted {
        return Ok(Verdict::Drop);
    }
    out.total(row.n.map(|n| row.id + i64::from(n)));
    if below(3, whims.masked_below) {
        out.t(row
            .t
            .map(|text| text.chars().take(1).chain("…".chars()).collect::<String>())
            .as_deref());
    } else if below(4, whims.blanked_below) {
        out.t(None::<&str>);
    }
    Ok(Verdict::Keep)
}
