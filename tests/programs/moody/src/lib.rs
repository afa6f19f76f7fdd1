//! A guest that does what the rows tell it to: the column `mood` says `keep`, `drop`, `error`, `panic`, `loop` or
//! `grow`.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Mood<'a> {
    mood: Option<&'a str>,
}

#[transform]
pub fn moody(row: Mood<'_>) -> Result<Verdict, String> {
    match row.mood {
        Some("drop") => Ok(Verdict::Drop),
        Some("error") => Err("in no mood for this row".to_owned()),
        Some("panic") => panic!("a row that nobody expected"),
        Some("loop") => loop {
            std::hint::black_box(());
        },
        Some("grow") => Ok(if hoard() == 0 { Verdict::Drop } else { Verdict::Keep }),
        _ => Ok(Verdict::Keep),
    }
}

/// Allocates until there is no more.
fn hoard() -> usize {
    let mut hoard: Vec<Vec<u8>> = vec![];
    while hoard.len() < 1 << 20 {
        hoard.push(std::hint::black_box(vec![1; 1 << 20]));
    }
    hoard.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_guest::test::{Guest, Outcome};

    #[test]
    fn rows_decide() {
        let table = Table::new("t").key("id", "bigint").nullable("mood", "text");
        let lines = r#"{"op":"insert","new":{"id":1,"mood":null}}
            {"op":"insert","new":{"id":2,"mood":"drop"}}
            {"op":"insert","new":{"id":3,"mood":"error"}}"#;
        let seen = Guest::<moody>::new(&table).unwrap().run_json(lines).unwrap();
        assert_eq!(seen[1], Outcome::Dropped);
        assert_eq!(seen[2], Outcome::Error("in no mood for this row".into()));
    }
}
