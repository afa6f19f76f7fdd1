//! Replaces the key. A guest may do that only if Postgres logs whole old rows.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Key {
    id: i64,
}

#[transform(replace("id", "int8"))]
pub fn rekeys(row: Key, out: &mut Out<'_>) -> Verdict {
    out.id(row.id + 1000);
    Verdict::Keep
}
