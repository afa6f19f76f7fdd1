//! Guests: the wasm file, and the decisions that its code returns.

use std::{sync::LazyLock, time::Duration};

use walgate_host::{
    config::GuestsConfig,
    guest::{
        AnswerColumn, AnswerShape, Engine, GuestKind, GuestValue, Limits, Verdict, decode_answer,
        read_component,
    },
};

use crate::HeapLimit;

/// Limit for parsing, checking and wrapping a file. The encoder copies what it reads.
const WRAPPED: HeapLimit = HeapLimit { per_byte: 256, fixed: 16 << 20 };
/// Larger files are not compiled here, because that is too slow for a fuzzer.
const COMPILED_BYTES_MAX: usize = 4 << 10;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let guests = GuestsConfig {
        memory_bytes: 4 << 20,
        batch: Duration::from_millis(10),
        output_bytes: 1 << 20,
        ..GuestsConfig::default()
    };
    Engine::new(Limits::of(&guests), None).unwrap()
});

/// An accepted module becomes a component that is accepted unchanged.
///
/// A small one is also compiled and described. Whatever its code does, the result is a guest or an
/// error.
pub fn check_module(data: &[u8]) {
    let made = WRAPPED.enforce(data, || read_component(data));
    let Ok(made) = made else { return };
    let again = read_component(&made.bytes).unwrap();
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

/// An error takes 12 bytes of input, a column 16 bytes. Both become structs of some more bytes.
const DECIDED: HeapLimit = HeapLimit { per_byte: 16, fixed: 4 << 10 };

/// Accepted decisions have a verdict per row, and a value of the right kind per row and column.
///
/// The input is the number of rows, the number of columns, one byte per column, and the decisions.
/// The byte of a column holds its kind, and whether the column is replaced.
pub fn check_decisions(data: &[u8]) {
    let Some((&[rows, columns], rest)) = data.split_first_chunk::<2>() else { return };
    let Some((columns, answer)) = rest.split_at_checked(usize::from(columns % 8)) else { return };
    let column = |byte: &u8| AnswerColumn {
        kind: GuestKind::ALL[usize::from(byte & 0x7f) % GuestKind::ALL.len()],
        untouched: byte & 0x80 != 0,
    };
    let columns: Vec<AnswerColumn> = columns.iter().map(column).collect();
    let rows = usize::from(rows);
    let shape = AnswerShape { rows, columns: &columns };
    let Ok(decided) = DECIDED.enforce(answer, || decode_answer(answer, &shape)) else { return };
    let kept = (0..rows).filter(|&row| decided.verdict(row) == Verdict::Keep).count();
    assert_eq!(decided.all_kept(), kept == rows);
    for (index, column) in columns.iter().enumerate() {
        let values: Vec<GuestValue<'_>> = (0..rows).map(|row| decided.value(index, row)).collect();
        assert!(values.iter().all(|value| has_kind(*column, value)), "{column:?}: {values:?}");
        let untouched = values.iter().all(|value| *value == GuestValue::Untouched);
        assert!(untouched || !decided.untouched_everywhere(index));
    }
}

fn has_kind(column: AnswerColumn, value: &GuestValue<'_>) -> bool {
    match (column.kind, value) {
        (_, GuestValue::Untouched) => column.untouched,
        (_, GuestValue::Null)
        | (GuestKind::Boolean, GuestValue::Boolean(_))
        | (
            GuestKind::Integer | GuestKind::Timestamp | GuestKind::Date | GuestKind::Time,
            GuestValue::Integer(_),
        )
        | (GuestKind::Float, GuestValue::Float(_))
        | (GuestKind::Text, GuestValue::Text(_))
        | (GuestKind::Bytes | GuestKind::Packed, GuestValue::Bytes(_)) => true,
        (GuestKind::Uuid, GuestValue::Bytes(bytes)) => bytes.len() == 16,
        _ => false,
    }
}
