//! Drops, fails and redacts rows as its parameters demand.
//!
//! A test draws the parameters at random, so that this program represents any guest.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct NumberedText<'a> {
    id: i64,
    n: Option<i32>,
    t: Option<&'a str>,
}

/// Each `…_below` selects the rows whose `n`, scrambled, is below it modulo `of`.
#[derive(Parameters)]
pub struct Misbehaviour {
    of: i32,
    /// Rows to keep.
    kept_below: i32,
    /// Rows to fail with an error.
    failed_below: i32,
    /// Rows whose text is masked.
    masked_below: i32,
    /// Rows whose text becomes NULL, unless it is masked.
    blanked_below: i32,
    /// Whether rows without `n` are kept.
    #[parameter(default = "true")]
    null_leaves: bool,
    /// Rows with a longer text are dropped.
    longest: Option<usize>,
}

#[transform(hide("secret"), replace("t"), add("total", "int8"))]
pub fn random_misbehaviour(
    row: NumberedText<'_>,
    parameters: &Misbehaviour,
    out: &mut Out<'_>,
) -> Result<Verdict, String> {
    // Each rule adds another number, so that the rules apply in every combination.
    let is_below = |offset: i32, below: i32| {
        let remainder = |n: i32| n.wrapping_mul(7).wrapping_add(offset).rem_euclid(parameters.of);
        row.n.is_some_and(|n| remainder(n) < below)
    };
    if is_below(1, parameters.failed_below) {
        return Err(format!("random failure: {:?}", row.n));
    }
    let is_too_long =
        row.t.zip(parameters.longest).is_some_and(|(text, longest)| text.len() > longest);
    let is_kept = row.n.map_or(parameters.null_leaves, |_| is_below(2, parameters.kept_below));
    if is_too_long || !is_kept {
        return Ok(Verdict::Drop);
    }
    out.total(row.n.map(|n| row.id + i64::from(n)));
    if is_below(3, parameters.masked_below) {
        let mask_text = |text: &str| text.chars().take(1).chain("…".chars()).collect::<String>();
        out.t(row.t.map(mask_text));
    } else if is_below(4, parameters.blanked_below) {
        out.t(None::<&str>);
    }
    Ok(Verdict::Keep)
}
