//! What the macros make of guests: fields, names, parameters, rows and what operators read.

use walgate_guest::prelude::*;
use walgate_guest::test::{Change, Guest, Outcome, Value};

#[derive(Columns)]
struct Note<'a> {
    #[column("Note Id")]
    id: i32,
    r#type: &'a str,
    body: Cell<&'a str>,
    tags: Option<Packed<'a>>,
}

#[derive(Parameters)]
struct Config {
    #[parameter("max", default = 100)]
    id_max: i32,
    suffix: Option<String>,
}

#[transform(replace("type"), replace("Note Id" as note_id, "bigint"), add("first_tag", "text"), add("change", "text", not_null))]
fn notes(
    note: Note<'_>,
    row: Row<Note<'_>>,
    out: &mut Out<'_>,
    config: &Config,
) -> Result<Verdict, String> {
    if note.id > config.id_max {
        return Err(format!("id {} above {}", note.id, config.id_max));
    }
    if note.body == Cell::Null {
        return Ok(Verdict::Drop);
    }
    out.r#type(format_args!("{}{}", note.r#type, config.suffix.as_deref().unwrap_or_default()));
    out.note_id(i64::from(note.id) * 10);
    let first = note.tags.and_then(|tags| tags.elements().next());
    out.first_tag(first.and_then(|tag| tag.as_str()));
    if note.r#type != "silent" {
        out.change(match row.old() {
            Some(old) => format!("was {}", old.r#type),
            None => format!("{:?}, old {}", row.op(), row.is_old_image()),
        });
    }
    Ok(Verdict::Keep)
}

fn table() -> Table {
    Table::new("public.notes")
        .key("Note Id", "integer")
        .column("type", "text")
        .nullable("body", "text")
        .nullable("tags", "text[]")
        .old_rows()
}

fn note(id: i32, of_type: &str, body: Value) -> [(&'static str, Value); 4] {
    // ["x"]
    let tags = Value::Packed(vec![0x91, 0xa1, b'x']);
    [("Note Id", id.into()), ("type", of_type.into()), ("body", body), ("tags", tags)]
}

#[test]
fn names_rows_and_parameters() {
    let mut guest = Guest::<notes>::new(&table().parameter("suffix", "!")).unwrap();
    let seen = guest.run(&[
        Change::snapshot(note(1, "a", Value::Unchanged)),
        Change::update(note(2, "b", "new".into())).with_old(note(2, "a", "old".into())),
        Change::update(note(3, "b", "new".into())).with_old(note(3, "a", Value::Null)),
        Change::update(note(4, "b", Value::Null)).with_old(note(4, "a", "old".into())),
        Change::update(note(5, "b", Value::Null)).with_old(note(5, "a", Value::Null)),
        Change::insert(note(101, "a", "x".into())),
        Change::insert(note(6, "silent", "x".into())),
    ]);
    let row = seen[0].row();
    assert_eq!(
        (&row["Note Id"], &row["type"], &row["first_tag"]),
        (&10i64.into(), &"a!".into(), &"x".into())
    );
    assert_eq!((&row["body"], &row["change"]), (&Value::Unchanged, &"Snapshot, old false".into()));
    assert_eq!(seen[1].row()["change"], "was a".into());
    let Outcome::Kept(kept) = &seen[1] else { panic!("{:?}", seen[1]) };
    assert_eq!(kept.old.as_ref().unwrap()["change"], "Update, old true".into());
    let ops: Vec<_> = seen.iter().map(Outcome::op).collect();
    assert_eq!(ops[2..5], [Some(Op::Insert), Some(Op::Delete), None]);
    assert_eq!(seen[5], Outcome::Error("id 101 above 100".into()));
    assert!(matches!(&seen[6], Outcome::Error(e) if e.contains("column change")), "{:?}", seen[6]);
}

#[test]
fn the_old_key_alone() {
    let mut guest = Guest::<notes>::new(&table()).unwrap();
    let seen = guest.run(&[
        Change::update(note(8, "b", Value::Null)).with_old([("Note Id", 7.into())]),
        Change::delete([("Note Id", 9.into())]),
    ]);
    assert_eq!((seen[0].op(), &seen[0].row()["Note Id"]), (Some(Op::Delete), &7.into()));
    assert_eq!((seen[1].op(), &seen[1].row()["Note Id"]), (Some(Op::Delete), &9.into()));
}

#[test]
fn what_operators_read() {
    let refused = |table: &Table| Guest::<notes>::new(table).unwrap_err();
    let lacks = Table::new("public.notes").key("Note Id", "integer").column("type", "text");
    assert_eq!(
        refused(&lacks),
        "the guest reads body, which is not there: the table public.notes has Note Id, type"
    );
    let wide = Table::new("public.notes").key("Note Id", "bigint");
    assert_eq!(
        refused(&wide),
        "column Note Id is bigint; the guest reads it as an i32 (an integer or smaller)"
    );
    assert_eq!(
        refused(&table().parameter("max", "many")),
        "the parameter max = \"many\": invalid digit found in string"
    );
    assert_eq!(
        refused(&table().parameter("mux", "1")),
        "the guest has no parameter mux; it takes max, suffix"
    );
    let by_default = Table { old_rows: false, ..table() };
    assert!(refused(&by_default).contains("REPLICA IDENTITY FULL"));
}

#[test]
fn null_where_none_is_expected_is_the_rows_error() {
    let mut guest = Guest::<notes>::new(&table()).unwrap();
    let [id, _, body, tags] = note(1, "", "x".into());
    let seen = guest.run(&[Change::insert([id, ("type", Value::Null), body, tags])]);
    let message = "column type is NULL: read it as an Option to allow for that";
    assert_eq!(seen[0], Outcome::Error(message.into()));
}

mod promises {
    use super::*;

    #[transform(hide("body"), never_drops)]
    pub fn promised() -> Verdict {
        Verdict::Drop
    }
}

#[test]
fn a_broken_promise_is_an_error() {
    let mut guest = Guest::<promises::promised>::new(&table()).unwrap();
    assert!(!guest.plan().filters && guest.plan().reads.is_empty());
    let seen = guest.run(&[Change::insert(note(1, "a", "x".into()))]);
    assert!(matches!(&seen[0], Outcome::Error(e) if e.contains("never_drops")));
}
