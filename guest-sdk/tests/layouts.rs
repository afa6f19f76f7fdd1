//! Layouts there and back, and what is none: checking never panics, and what was checked can be
//! read.

use proptest::prelude::*;
use walgate_guest::batch::Batch;
use walgate_guest::columns::Columns;
use walgate_guest::decisions::{Decisions, OutputColumn};
use walgate_guest::test::{Cells, Decided, Image, Value, encode_batch};
use walgate_guest::{
    AllColumns, Any, Cell, Column, Date, GuestPlan, Kind, Output, Read, Table, Time, Timestamp,
    Uuid,
};

/// One column of each kind, all read.
fn table() -> (Table, GuestPlan) {
    let types = [
        "boolean",
        "bigint",
        "double precision",
        "text",
        "bytea",
        "uuid",
        "timestamp with time zone",
        "date",
        "time without time zone",
        "text[]",
    ];
    let columns = types.iter().zip(Kind::ALL).map(|(type_name, kind)| Column {
        name: format!("{kind:?}"),
        type_name: (*type_name).into(),
        kind,
        nullable: true,
        key: false,
    });
    let table = Table { columns: columns.collect(), ..Table::new("t") };
    let reads = table.columns.iter().map(|c| Read { column: c.name.clone(), unchanged: true });
    let plan = GuestPlan { reads: reads.collect(), ..GuestPlan::default() };
    (table, plan)
}

fn value(kind: Kind) -> BoxedStrategy<Value> {
    let any_value = match kind {
        Kind::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Kind::Integer => any::<i64>().prop_map(Value::Integer).boxed(),
        Kind::Float => (-1e9f64..1e9).prop_map(Value::Float).boxed(),
        Kind::Text => ".{0,12}".prop_map(Value::Text).boxed(),
        Kind::Bytes => any::<Vec<u8>>().prop_map(Value::Bytes).boxed(),
        Kind::Uuid => any::<[u8; 16]>().prop_map(|b| Value::Uuid(Uuid(b))).boxed(),
        Kind::Timestamp => any::<i64>().prop_map(|t| Value::Timestamp(Timestamp(t))).boxed(),
        Kind::Date => any::<i64>().prop_map(|t| Value::Date(Date(t))).boxed(),
        Kind::Time => any::<i64>().prop_map(|t| Value::Time(Time(t))).boxed(),
        Kind::Packed => any::<Vec<u8>>().prop_map(Value::Packed).boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 1 => Just(Value::Unchanged), 6 => any_value].boxed()
}

fn row() -> impl Strategy<Value = Cells> {
    let cells: Vec<_> = Kind::ALL.into_iter().map(value).collect();
    cells.prop_map(|values| {
        Kind::ALL
            .into_iter()
            .zip(values)
            .map(|(kind, value)| (format!("{kind:?}"), value))
            .collect()
    })
}

fn owned(cell: Option<Cell<Any<'_>>>) -> Value {
    match cell {
        None | Some(Cell::Null) => Value::Null,
        Some(Cell::Unchanged) => Value::Unchanged,
        Some(Cell::Value(value)) => match value {
            Any::Boolean(v) => Value::Boolean(v),
            Any::Integer(v) => Value::Integer(v),
            Any::Float(v) => Value::Float(v),
            Any::Text(v) => Value::Text(v.into()),
            Any::Bytes(v) => Value::Bytes(v.into()),
            Any::Uuid(v) => Value::Uuid(v),
            Any::Timestamp(v) => Value::Timestamp(v),
            Any::Date(v) => Value::Date(v),
            Any::Time(v) => Value::Time(v),
            Any::Packed(v) => Value::Packed(v.0.into()),
        },
    }
}

fn read_all(batch: &Batch<'_>) -> Vec<Vec<Value>> {
    let views = AllColumns::open(batch).expect("all columns");
    (0..batch.rows())
        .map(|row| AllColumns::read(&views, row).expect("a row").iter().map(owned).collect())
        .collect()
}

fn batch_of(rows: &[Cells]) -> Vec<u8> {
    let (table, plan) = table();
    let images: Vec<_> = rows.iter().map(|cells| Image { flags: 1, cells }).collect();
    encode_batch(&table, &plan, &images).expect("values of these kinds")
}

/// Replaces by a text and adds a date: one column of each way of laying out.
fn outputs() -> (Table, GuestPlan) {
    let (table, _) = table();
    let output = |column: &str, type_name: &str| Output {
        column: column.into(),
        type_name: type_name.into(),
        nullable: true,
    };
    let plan = GuestPlan {
        replaces: vec![output("Text", "text")],
        adds: vec![output("day", "date")],
        ..GuestPlan::default()
    };
    (table, plan)
}

/// What a row is decided to be, and whether its cells are set.
type Decision = (Result<bool, String>, Option<Option<String>>, Option<i64>);

fn decide(rows: &[Decision]) -> Vec<u8> {
    use walgate_guest::output::{set_value, types};
    let column = |name: &str, kind, replaces| OutputColumn {
        name: name.into(),
        kind,
        nullable: true,
        replaces,
    };
    let mut decisions =
        Decisions::new([column("Text", Kind::Text, true), column("day", Kind::Date, false)]);
    decisions.begin_batch(rows.len());
    for (keep, text, day) in rows {
        if let Some(text) = text {
            set_value::<types::Text>(&mut decisions, 0, text.as_deref());
        }
        set_value::<types::Date>(&mut decisions, 1, day.map(Date));
        decisions.decide_row(keep.clone());
    }
    decisions.encode()
}

fn decision() -> impl Strategy<Value = Decision> {
    let keep = prop_oneof![3 => Just(Ok(true)), 1 => Just(Ok(false)), 1 => ".{0,9}".prop_map(Err)];
    (keep, any::<Option<Option<String>>>(), any::<Option<i64>>())
}

proptest! {
    #[test]
    fn batches_there_and_back(rows in prop::collection::vec(row(), 0..20)) {
        let bytes = batch_of(&rows);
        let expected: Vec<Vec<Value>> = rows.iter()
            .map(|row| Kind::ALL.iter().map(|kind| row[&format!("{kind:?}")].clone()).collect())
            .collect();
        prop_assert_eq!(read_all(&Batch::decode(&bytes).unwrap()), expected);
    }

    #[test]
    fn decisions_there_and_back(rows in prop::collection::vec(decision(), 0..20)) {
        let (table, plan) = outputs();
        let decided = Decided::decode(&decide(&rows), &table, &plan).unwrap();
        for (at, (keep, text, day)) in rows.iter().enumerate() {
            let kept = *keep == Ok(true);
            prop_assert_eq!(decided.verdicts[at], match keep { Ok(false) => 0, Ok(true) => 1, Err(_) => 2 });
            let text = text.clone().filter(|_| kept).map_or(Value::Unchanged, Value::from);
            let day = day.filter(|_| kept).map(Date);
            prop_assert_eq!((&decided.columns[0][at], &decided.columns[1][at]), (&text, &Value::from(day)));
        }
        let errors: Vec<_> = rows.iter().enumerate()
            .filter_map(|(at, (keep, ..))| Some((at, keep.clone().err()?)))
            .collect();
        prop_assert_eq!(decided.errors, errors);
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
        let (table, plan) = outputs();
        for magic in [b"WGB1", b"WGD1"] {
            let bytes = [&magic[..], &bytes].concat();
            if let Ok(batch) = Batch::decode(&bytes) {
                read_all(&batch);
            }
            let _ = Decided::decode(&bytes, &table, &plan);
        }
    }

    #[test]
    fn damage_is_refused_or_read_without_a_panic(
        rows in prop::collection::vec(row(), 1..4),
        decisions in prop::collection::vec(decision(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (table, plan) = outputs();
        let (mut batch, mut decided) = (batch_of(&rows), decide(&decisions));
        for (at, byte) in damage {
            // The header and the directory more often than the rest.
            for bytes in [&mut batch, &mut decided] {
                let len = if byte % 2 == 0 { bytes.len() } else { bytes.len().min(64) };
                bytes[at.index(len)] = byte;
            }
        }
        if let Ok(batch) = Batch::decode(&batch) {
            read_all(&batch);
        }
        let _ = Decided::decode(&decided, &table, &plan);
    }
}
