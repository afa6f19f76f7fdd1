//! The messages that a consumer reads: dictionaries, frames, control messages, changes and chunks.

mod encode;

use std::{fmt::Debug, sync::LazyLock};

use walgate_consumer::{change_json, row_json, sqlite_value};
use walgate_wire::{
    Caps, Column, Compressor, DeadLetter, Decompressor, Dictionary, EpochRecord, Identity,
    InitError, InitMeta, InitStart, Lsn, MAX_DICTIONARY_BYTES, Progress, Schema, TableName,
    TableState, Value, decode_changes, decode_chunk, from_msgpack, to_msgpack,
};

use crate::HeapLimit;

/// The dictionary of the conformance vectors.
static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| {
    Dictionary::new(*include_bytes!("../../tests/vectors/dictionary.bin")).unwrap()
});

/// Frames that are written with an accepted dictionary can be read.
pub fn check_dictionary(data: &[u8]) {
    let Ok(dictionary) = Dictionary::new(data) else { return };
    assert!(data.len() <= MAX_DICTIONARY_BYTES && dictionary.id() != 0);
    let body = [data, b"another row".as_slice()].concat();
    let mut frame = Vec::new();
    Compressor::new(1, Some(&dictionary)).unwrap().compress(&body, &mut frame).unwrap();
    let mut decompressor = Decompressor::new(Some(&dictionary)).unwrap();
    assert_eq!(decompressor.decompress(&frame, &Caps::default()).unwrap(), body);
}

const FRAME_CAPS: Caps =
    Caps { body_bytes_max: 1 << 20, depth_max: 64, values_max: 1 << 16, ratio_max: 64 };

/// A decompressed body stays within the cap and round-trips.
///
/// The first byte selects whether the frame uses the dictionary.
pub fn check_frame(data: &[u8]) {
    let Some((named, frame)) = data.split_first() else { return };
    let dictionary = (named & 1 == 1).then_some(&*DICTIONARY);
    let mut decompressor = Decompressor::new(dictionary).unwrap();
    let limit = HeapLimit { per_byte: 0, fixed: FRAME_CAPS.body_bytes_max + 4096 };
    let Ok(body) = limit.enforce(frame, || decompressor.decompress(frame, &FRAME_CAPS)) else {
        return;
    };
    assert!(body.len() <= FRAME_CAPS.body_bytes_max);
    let mut again = Vec::new();
    Compressor::new(1, dictionary).unwrap().compress(&body, &mut again).unwrap();
    assert_eq!(decompressor.decompress(&again, &Caps::default()).unwrap(), body);
}

/// An accepted control message round-trips. The first byte selects its type.
pub fn check_control(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 7 {
        0 => check_round_trip::<Schema>(body),
        1 => check_round_trip::<InitStart>(body),
        2 => check_round_trip::<InitMeta>(body),
        3 => check_round_trip::<InitError>(body),
        4 => check_round_trip::<Progress>(body),
        5 => check_round_trip::<EpochRecord>(body),
        _ => check_round_trip::<DeadLetter>(body),
    }
}

/// A list of columns grows by doubling, and a column takes some hundred bytes.
const CONTROL: HeapLimit = HeapLimit { per_byte: 256, fixed: 2 << 20 };

fn check_round_trip<T>(body: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    let Ok(message) = CONTROL.enforce(body, || from_msgpack::<T>(body)) else { return };
    let again = from_msgpack::<T>(&to_msgpack(&message).unwrap()).unwrap();
    assert_eq!(again, message);
}

/// A value takes 32 bytes of memory and at least one byte of input. Lists grow by doubling.
const VALUES: HeapLimit = HeapLimit { per_byte: 160, fixed: 4 << 20 };

/// Accepted changes round-trip, and can be printed whatever the types of the columns.
///
/// The first byte is the number of columns.
pub fn check_changes(data: &[u8]) {
    let Some((&columns, body)) = data.split_first() else { return };
    let schema = schema_of(usize::from(columns));
    let caps = Caps::default();
    let read = |body| VALUES.enforce(body, || decode_changes(body, schema.columns.len(), &caps));
    let Ok(changes) = read(body) else { return };
    let written = encode::encode_changes(&changes);
    let again = decode_changes(&written, schema.columns.len(), &caps).unwrap();
    assert_eq!(encode::encode_changes(&again), written);
    for change in &changes {
        change_json(&schema, change).to_string();
    }
}

/// An accepted chunk round-trips. Its rows can be printed and stored, whatever the column types.
///
/// The first byte is the number of columns.
pub fn check_chunk(data: &[u8]) {
    let Some((&columns, body)) = data.split_first() else { return };
    let schema = schema_of(usize::from(columns));
    let caps = Caps::default();
    let read = |body| VALUES.enforce(body, || decode_chunk(body, schema.columns.len(), &caps));
    let Ok(chunk) = read(body) else { return };
    assert!(chunk.columns.iter().all(|column| column.len() == chunk.row_count));
    let written = encode::encode_chunk(&chunk);
    let again = decode_chunk(&written, schema.columns.len(), &caps).unwrap();
    assert_eq!(encode::encode_chunk(&again), written);
    if schema.columns.is_empty() {
        return;
    }
    for row in chunk.into_rows() {
        assert_eq!(row.len(), schema.columns.len());
        row_json(&schema, &row).to_string();
        check_sqlite_values(&schema, &row);
    }
}

fn check_sqlite_values(schema: &Schema, row: &[Value<'_>]) {
    for (column, value) in schema.columns.iter().zip(row) {
        sqlite_value(column, value);
    }
}

/// Types whose values are printed in a special way, arrays of them, and an unknown type.
const OIDS: [u32; 16] =
    [25, 20, 1184, 1114, 1082, 1083, 2950, 17, 700, 114, 1185, 1182, 2951, 3807, 1016, 99_999];

fn schema_of(columns: usize) -> Schema {
    let name = TableName::new("public", "t");
    let column = |index: usize| Column {
        name: format!("c{index}"),
        type_name: "text[]".into(),
        oid: OIDS[index % OIDS.len()],
        base_oid: None,
        made_of: None,
        attnum: index as i16 + 1,
        nullable: true,
        key: index == 0,
    };
    Schema {
        table: name.to_string(),
        token: name.token(),
        revision: 1,
        state: TableState::Live,
        columns: (0..columns).map(column).collect(),
        key: vec![],
        identity: Identity::Full,
        old: (0..columns as u32).collect(),
        guest: None,
        lsn: Lsn(0),
        relid: None,
        reason: None,
    }
}
