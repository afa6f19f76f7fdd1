//! Reads every column of any table, keeps every row and writes nothing.
//!
//! The benchmarks use it to measure the minimal cost of a guest.

use std::hint::black_box;

use walgate_guest::prelude::*;

#[transform(never_drops)]
pub fn identity(columns: AllColumns<'_>) -> Verdict {
    // Without `black_box` the compiler would remove the reads.
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
    fn rows_are_published_unchanged() {
        let table = Table::new("t").key("id", "integer").nullable("note", "text");
        let mut guest = Guest::<identity>::new(&table).unwrap();
        assert_eq!(guest.plan().reads.len(), 2);
        let seen = guest.run(&[Change::insert([("id", 1.into()), ("note", "x".into())])]);
        assert_eq!(seen[0].row()["note"], "x".into());
    }
}
