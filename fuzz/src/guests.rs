//! Guests: the dropped-in file, and the answer of its code.

use std::{sync::LazyLock, time::Duration};

use walgate_host::{
    config::Guests,
    guest::{
        Engine, Limits, component,
        exec::decisions::{self, Shape, ShapeColumn, Value, Verdict},
        plan::kinds::Kind,
    },
};

use crate::Peak;

/// Parsing, checking and wrapping a file. The encoder keeps copies of its input.
const WRAPPED: Peak = Peak { per_byte: 256, fixed: 16 << 20 };
/// Larger files are not compiled here: that takes too long for a fuzzer.
const COMPILED_BYTES_MAX: usize = 4 << 10;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let guests = Guests {
        memory_bytes: 4 << 20,
        batch: Duration::from_millis(10),
        output_bytes: 1 << 20,
        ..Guests::default()
    };
    Engine::new(Limits::of(&guests), None).unwrap()
});

/// An accepted module becomes a component that is accepted unchanged. A small one is then compiled
/// and asked for its name. Whatever it does, the answer is a guest or a refusal.
pub fn module(data: &[u8]) {
    let made = WRAPPED.of(data, || component(data));
    let Ok(made) = made else { return };
    let again = component(&made.bytes).unwrap();
    assert_eq!((&again.bytes, &again.transform), (&made.bytes, &made.transform));
    assert_eq!((&again.imports, &again.stubbed), (&made.imports, &made.stubbed));
    if data.len() > COMPILED_BYTES_MAX {
        return;
    }
    if let Ok(module) = ENGINE.load(data) {
        let (name, version) = (&module.description().name, &module.description().version);
        assert!(!name.is_empty() && !version.is_empty());
        assert!(!name.contains(char::is_control) && !version.contains(char::is_control));
    }
}

/// A row and a text for each error of 12 bytes; a column for each entry of 16 bytes in the
/// directory.
const DECIDED: Peak = Peak { per_byte: 16, fixed: 4 << 10 };

/// The input: numbers of rows and columns, one byte for each column (its kind, and whether it
/// replaces one), then the answer. An accepted answer has a verdict for every row, and a value of
/// the right kind.
pub fn decisions(data: &[u8]) {
    let Some((&[rows, columns], rest)) = data.split_first_chunk::<2>() else { return };
    let Some((columns, answer)) = rest.split_at_checked(usize::from(columns % 8)) else { return };
    let column = |byte: &u8| ShapeColumn {
        kind: Kind::ALL[usize::from(byte & 0x7f) % Kind::ALL.len()],
        untouched: byte & 0x80 != 0,
    };
    let columns: Vec<ShapeColumn> = columns.iter().map(column).collect();
    let rows = usize::from(rows);
    let shape = Shape { rows, columns: &columns };
    let Ok(decided) = DECIDED.of(answer, || decisions::decode(answer, &shape)) else { return };
    let kept = (0..rows).filter(|&row| decided.verdict(row) == Verdict::Keep).count();
    assert_eq!(decided.all_kept(), kept == rows);
    for (index, column) in columns.iter().enumerate() {
        let values: Vec<Value<'_>> = (0..rows).map(|row| decided.value(index, row)).collect();
        assert!(values.iter().all(|value| fits(*column, value)), "{column:?}: {values:?}");
        let untouched = values.iter().all(|value| *value == Value::Untouched);
        assert!(untouched || !decided.untouched_everywhere(index));
    }
}

fn fits(column: ShapeColumn, value: &Value<'_>) -> bool {
    match (column.kind, value) {
        (_, Value::Untouched) => column.untouched,
        (_, Value::Null)
        | (Kind::Boolean, Value::Boolean(_))
        | (Kind::Integer | Kind::Timestamp | Kind::Date | Kind::Time, Value::Integer(_))
        | (Kind::Float, Value::Float(_))
        | (Kind::Text, Value::Text(_))
        | (Kind::Bytes | Kind::Packed, Value::Bytes(_)) => true,
        (Kind::Uuid, Value::Bytes(bytes)) => bytes.len() == 16,
        _ => false,
    }
}
