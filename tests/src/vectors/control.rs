//! Vectors of control messages: one of each kind, with and without optional fields.

use serde::Serialize;
use serde_json::json;
use walgate_wire::{
    Column, Epoch, EpochRecord, Guest, Identity, InitError, InitMeta, InitStart, Lsn, Progress,
    Schema, TableName, TableState, XidWindow, to_msgpack,
};

use super::Vector;

pub fn vectors() -> Vec<Vector> {
    let start = start();
    let meta = InitMeta {
        start: start.clone(),
        batch_count: 3,
        row_count: 200_000,
        raw_bytes: 8_000_000,
        bytes: 1_000_000,
        sha256: "ab".repeat(32),
        finished_at: 1_795_366_299_000_000,
    };
    let plain_start = InitStart {
        compression_enabled: false,
        dictionary_id: None,
        dictionary_revision: None,
        dictionary_sha256: None,
        guest: None,
        ..start.clone()
    };
    let error = InitError {
        table: "public.users".to_owned(),
        snapshot_id: Some("1a2049569d4adf7".to_owned()),
        code: "source_failed".to_owned(),
        message: "the connection to Postgres was lost".to_owned(),
        retry_after: Some(5),
    };
    let bare_error = InitError {
        snapshot_id: None,
        retry_after: None,
        code: "unknown_table".to_owned(),
        ..error.clone()
    };
    let record = EpochRecord {
        epoch: Epoch(0x6b03_38ae),
        system_id: "7575858585858585858".to_owned(),
        timeline: 1,
        slot: "walgate".to_owned(),
        database: "shop".to_owned(),
        slot_start: Lsn(0x16_B374_D848),
    };
    let progress = Progress {
        lsn: Lsn(0x16_B374_D848),
        n: 3,
        end_lsn: Lsn(0x16_B374_D878),
        at: 1_795_366_298_123_456,
    };
    vec![
        control("control_schema", &schema()),
        control("control_schema_reseed", &reseed()),
        control("control_init_start", &start),
        control("control_init_start_plain", &plain_start),
        control("control_init_meta", &meta),
        control("control_init_error", &error),
        control("control_init_error_bare", &bare_error),
        control("control_progress", &progress),
        control("control_epoch", &record),
        tokens(),
    ]
}

fn control<T: Serialize>(name: &str, message: &T) -> Vector {
    Vector {
        name: name.to_owned(),
        kind: "control",
        headers: json!({}),
        parts: vec![to_msgpack(message).expect("MessagePack")],
        columns: None,
        dictionary: None,
        expected: serde_json::to_value(message).expect("JSON"),
    }
}

fn columns() -> Vec<Column> {
    let column = |name: &str, type_name: &str, oid, attnum, key: bool| Column {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        oid,
        base_oid: None,
        made_of: None,
        attnum,
        nullable: !key,
        key,
    };
    vec![
        column("id", "bigint", 20, 1, true),
        column("é mail", "character varying(80)", 1043, 3, false),
        Column { base_oid: Some(1184), ..column("seen", "moment", 16_402, 4, false) },
        Column { base_oid: Some(1185), ..column("times", "moment[]", 16_401, 6, false) },
    ]
}

fn schema() -> Schema {
    let name = TableName::new("public", "users");
    Schema {
        table: name.to_string(),
        token: name.token(),
        relid: None,
        revision: 3,
        state: TableState::Live,
        columns: columns(),
        key: vec!["id".to_owned()],
        identity: Identity::Default,
        old: vec![0],
        guest: None,
        lsn: Lsn(0x16_B374_D848),
        reason: None,
    }
}

fn reseed() -> Schema {
    let guest =
        Guest { name: "users".to_owned(), version: "1.2.0".to_owned(), sha256: "cd".repeat(32) };
    let reason = Some("column plan was added with a default".to_owned());
    let made_of = Some("0f1e2d3c4b5a6978".to_owned());
    let place = Column {
        name: "place".to_owned(),
        type_name: "address".to_owned(),
        oid: 16_400,
        made_of,
        attnum: 7,
        ..columns().swap_remove(1)
    };
    Schema {
        state: TableState::Reseed,
        guest: Some(guest),
        reason,
        identity: Identity::Full,
        old: vec![0, 1],
        columns: [columns(), vec![place]].concat(),
        ..schema()
    }
}

fn start() -> InitStart {
    InitStart {
        v: 1,
        table: "public.users".to_owned(),
        snapshot_id: "1a2049569d4adf7".to_owned(),
        lsn: Lsn(0x16_B374_D000),
        epoch: Epoch(0x6b03_38ae),
        compression_enabled: true,
        dictionary_id: Some("users_dict".to_owned()),
        dictionary_revision: Some(7),
        dictionary_sha256: Some("ef".repeat(32)),
        schema_revision: 3,
        columns: columns(),
        key: vec!["id".to_owned()],
        identity: Identity::Default,
        guest: reseed().guest,
        xid_window: XidWindow {
            xmin: 4_294_967_290,
            xmax: 4_294_967_300,
            xip: vec![4_294_967_290, 4_294_967_295],
        },
        cdc_sequence: 4711,
        estimated_rows: 200_000,
        started_at: 1_795_366_298_123_456,
    }
}

/// Table names in their usual form, and their tokens.
fn tokens() -> Vector {
    let pairs: Vec<_> = [
        ("public", "users"),
        ("sales", "orders"),
        ("public", "with space"),
        ("odd.schema", "odd \"table"),
        ("public", "a.b"),
        ("public", "ünïcödé 🦀"),
        ("public", "=2E"),
        ("public", "-_-"),
        ("Sales", "Orders"),
    ]
    .map(|(schema, table)| (schema, table, TableName::new(schema, table).token()))
    .into();
    control("control_tokens", &pairs)
}
