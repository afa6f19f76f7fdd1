//! `walgate dlq`: rows that guests failed on and that became dead letters, one JSON object per
//! line.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::pull};
use futures::StreamExt;
use serde_json::{Map, Value as Json, json};
use walgate_consumer::{change_json, connect};
use walgate_wire::{Caps, DeadLetter, TableName, decode_changes, from_msgpack, subjects};

use crate::commands::{NatsArgs, still_read};

/// Print rows that guests failed on, where tables set them aside (on_guest_error = "dead-letter").
///
/// One JSON object a line, oldest first: table, guest, version, error, position (null for a row of
/// a snapshot), at, op, row, and where they are there unchanged and old. Rows are as they were
/// before the guest, without the columns that it hides. The rows stay where they are. Ends with the
/// last one that is there.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    /// Stream that holds them
    #[arg(
        long,
        value_name = "NAME",
        env = "WALGATE_NATS_DLQ_STREAM",
        default_value = "DLQ",
        hide_default_value = true,
        hide_env = true
    )]
    dlq_stream: String,
    /// Wait for more, until ctrl-c
    #[arg(short, long)]
    follow: bool,
    /// A table, for example public.users [default: all]
    #[arg(value_name = "TABLE")]
    tables: Vec<TableName>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let mut stopped = std::pin::pin!(walgate_host::supervisor::stop_signal());
    tokio::select! {
        biased;
        () = &mut stopped => Ok(ExitCode::SUCCESS),
        read = read(&args) => read,
    }
}

async fn read(args: &Args) -> Result<ExitCode> {
    let context = jetstream::new(connect(args.nats.access()?).await?);
    let stream = context.get_stream(&args.dlq_stream).await.with_context(|| {
        format!(
            "stream {}: a gateway creates it when it starts; has one run here?",
            args.dlq_stream
        )
    })?;
    let filter_subjects = match &args.tables[..] {
        [] => vec![subjects::DLQ_ALL.to_owned()],
        tables => tables.iter().map(|table| subjects::dlq(&table.token())).collect(),
    };
    let config = pull::OrderedConfig { filter_subjects, ..pull::OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.context("reading the stream")?;
    let mut left = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await.context("reading the stream")?;
    while args.follow || left > 0 {
        let Some(message) = messages.next().await else { break };
        let message = message.context("reading the stream")?;
        let place = message.info().map_or(0, |info| info.stream_sequence);
        let line = line(&message.payload).with_context(|| format!("dead letter {place}"))?;
        if !still_read(writeln!(io::stdout().lock(), "{line}"))? {
            break;
        }
        left = left.saturating_sub(1);
    }
    Ok(ExitCode::SUCCESS)
}

fn line(body: &[u8]) -> Result<Json> {
    let letter: DeadLetter = from_msgpack(body)?;
    let schema = &letter.schema;
    let changes = decode_changes(&letter.change, schema.columns.len(), &Caps::default())?;
    let change = changes.first().context("it holds no change")?;
    let Json::Object(mut change) = change_json(schema, change) else { return Ok(Json::Null) };
    if letter.position.is_none() {
        change.insert("op".into(), "snapshot".into());
    }
    let at = jiff::Timestamp::from_microsecond(letter.at)?.to_string();
    let mut out = Map::new();
    out.insert("table".into(), schema.table.clone().into());
    out.insert("guest".into(), letter.guest.name.into());
    out.insert("version".into(), letter.guest.version.into());
    out.insert("error".into(), letter.error.into());
    out.insert("position".into(), json!(letter.position));
    out.insert("at".into(), at.into());
    let kept = ["op", "row", "unchanged", "old"];
    out.extend(kept.iter().filter_map(|key| change.remove_entry(*key)));
    Ok(Json::Object(out))
}

#[cfg(test)]
mod tests {
    use walgate_wire::{
        ChangeWriter, Column, Guest, Identity, Lsn, Schema, TableName, TableState, pack, to_msgpack,
    };

    use super::*;

    /// The schema of `public.{name}` with text columns `c0`, `c1` … of which the first is the key.
    fn text_columns(name: &str, columns: i16) -> Schema {
        let name = TableName::new("public", name);
        let column = |index: i16| Column {
            name: format!("c{index}"),
            type_name: "text".into(),
            oid: 25,
            base_oid: None,
            made_of: None,
            attnum: index + 1,
            nullable: index > 0,
            key: index == 0,
        };
        Schema {
            table: name.to_string(),
            token: name.token(),
            relid: None,
            revision: 1,
            state: TableState::Live,
            columns: (0..columns).map(column).collect(),
            key: vec!["c0".into()],
            identity: Identity::Default,
            old: vec![0],
            guest: None,
            lsn: Lsn(0),
            reason: None,
        }
    }

    #[test]
    fn a_letter_is_a_line() {
        let mut writer = ChangeWriter::default();
        writer.transaction(Lsn(1), 2, 3);
        writer.insert(1);
        pack::array(&mut writer.out, 2);
        pack::str(&mut writer.out, "7");
        pack::nil(&mut writer.out);
        let mut letter = DeadLetter {
            v: 1,
            schema: text_columns("t", 2),
            guest: Guest { name: "g".into(), version: "1.2".into(), sha256: "0".into() },
            error: "in no mood".into(),
            position: Some("1/0/1/1".into()),
            at: 1_714_557_600_500_000,
            change: writer.out,
        };
        let read = |letter: &DeadLetter| line(&to_msgpack(letter).unwrap()).unwrap().to_string();
        let expected = r#"{"table":"public.t","guest":"g","version":"1.2","error":"in no mood","position":"1/0/1/1","at":"2024-05-01T10:00:00.5Z","op":"insert","row":{"c0":"7","c1":null}}"#;
        assert_eq!(read(&letter), expected);
        letter.position = None;
        assert!(read(&letter).contains(r#""position":null"#));
        assert!(read(&letter).contains(r#""op":"snapshot""#));
    }
}
