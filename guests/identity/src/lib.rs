//! Reads every column of whatever table it is given, keeps every row and writes nothing: what a guest costs at
//! least.

use std::hint::black_box;

use walgate_guest::prelude::*;

#[transform(never_drops)]
pub fn identity(columns: AllColumns<'_>) -> Verdict {
    // The values are looked at, or the compiler would leave them out.
    columns.iter().for_each(|value| {
        black_box(value);
    });
    Verdict::Keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_guest::test::{Change, Guest};

    #[test]
    fn rows_leave_as_they_came() {
        let table = Table::new("t").key("id", "integer").nullable("note", "text");
        let mut guest = Guest::<identity>::new(&table).unwrap();
        assert_eq!(guest.plan().reads.len(), 2);
        let seen = guest.run(&[Change::insert([("id", 1.into()), ("note", "x".into())])]);
        assert_eq!(seen[0].row()["note"], "x".into());
    }
}
