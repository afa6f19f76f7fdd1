//! The bytes that dictionaries and packing save, compared with maps in raw MessagePack.
//!
//! `walgate train` trains the dictionaries on one set of rows; another set of the same tables is
//! measured.

mod maps;
mod tables;

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use walgate_host::egress::compress::THOROUGH_LEVEL;
use walgate_tests::{
    Site, eventually,
    program::find_built,
    stream::{self, Body, Opener},
};
use walgate_wire::{
    Caps, Compressor, DICT, Dictionary, PROGRESS_SUBJECT, SCHEMA, Value, decode_changes,
    decode_chunk,
};

use crate::{
    ground::Ground,
    report::{Measured, thousands},
    row, snapshot,
};
use tables::{ROWS, TABLES};

pub const IDS: &[&str] = &[
    "bytes_change_saved",
    "bytes_row_saved_users",
    "bytes_row_saved_orders",
    "bytes_snapshot_saved_wide",
    "bytes_snapshot_saved_typical",
    "bytes_snapshot_saved_uniform",
];

/// So many rows of each table are measured one by one.
const SINGLE_ROWS: usize = 2000;

pub async fn measure(ground: &Ground) -> Result<Vec<Measured>> {
    let site = ground.new_site().await;
    tables::create(&site).await?;
    let names: Vec<_> = TABLES.iter().map(|table| format!("public.{table}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let _gateway = site.gateway(&names).start().await;
    train_dictionaries(&site).await?;
    tables::write_changes(&site, ground.pick(600, 2000)).await?;
    let mut rows = vec![measure_changes(&site).await?];
    tables::replace_rows(&site).await?;
    for (table, kind, single) in [
        ("users", "wide", Some("bytes_row_saved_users")),
        ("orders", "typical", Some("bytes_row_saved_orders")),
        ("readings", "uniform", None),
    ] {
        let (whole, one_by_one) = measure_snapshot(&site, table).await?;
        let id = IDS.iter().find(|id| id.ends_with(kind)).context("an id")?;
        let note = format!(
            "{} rows of {table} ({}): {}",
            thousands(ROWS),
            tables::describe(table),
            whole.averages_text()
        );
        rows.push(row(id, vec![whole.percent()], note)?);
        if let Some(id) = single {
            let note = format!(
                "rows of {table} one by one, each packed and compressed alone: {}",
                one_by_one.averages_text()
            );
            rows.push(row(id, vec![one_by_one.percent()], note)?);
        }
    }
    Ok(rows)
}

/// Bytes in raw maps, and bytes as sent.
#[derive(Clone, Copy, Debug, Default)]
struct Saved {
    count: usize,
    raw_maps: usize,
    sent: usize,
}

impl Saved {
    fn add(&mut self, raw_map: usize, sent: usize) {
        self.count += 1;
        self.raw_maps += raw_map;
        self.sent += sent;
    }

    fn percent(self) -> f64 {
        100.0 * (1.0 - self.sent as f64 / self.raw_maps.max(1) as f64)
    }

    /// Averages, as text.
    fn averages_text(self) -> String {
        let each = |bytes: usize| bytes as f64 / self.count.max(1) as f64;
        format!("{:.0} B as a map, {:.1} B sent", each(self.raw_maps), each(self.sent))
    }
}

/// Trains as an operator does; the gateway watches the folder.
async fn train_dictionaries(site: &Site) -> Result<()> {
    let mut command = Command::new(find_built("walgate"));
    command
        .args(["train", "--nats", &site.broker.url(), "--out"])
        .arg(site.dictionaries())
        .args(TABLES);
    let output =
        tokio::task::spawn_blocking(move || command.output()).await?.context("walgate train")?;
    ensure!(output.status.success(), "walgate train: {}", String::from_utf8_lossy(&output.stderr));
    let bucket = site.broker.jetstream().get_stream("KV_dictionaries").await?;
    for table in TABLES {
        let key = format!("$KV.dictionaries.{table}_dict");
        eventually(format!("the gateway has a dictionary for {table}"), async || {
            bucket.get_last_raw_message_by_subject(&key).await.map_err(|e| e.to_string())
        })
        .await;
    }
    // The gateway stores a dictionary before its first use.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

/// The bodies of single changes as the gateway sent them.
async fn measure_changes(site: &Site) -> Result<Measured> {
    let mut opener = Opener::new(&site.broker).await;
    let mut saved = Saved::default();
    let mut header_bytes = 0;
    for body in stream::join_bodies(stream::read_messages(&site.broker, "CDC").await) {
        if body.subject == PROGRESS_SUBJECT || body.headers.get(DICT).is_none() {
            continue;
        }
        let revision = body.headers.get(SCHEMA).context("Wg-Schema")?.as_str().parse()?;
        let schema = opener.schema(revision).await;
        let opened = opener.open(&body).await;
        let changes = decode_changes(&opened, schema.columns.len(), &Caps::default())?;
        // A gateway that lags puts several changes into one body. Such bodies are not counted.
        if let [change] = &changes[..] {
            saved.add(maps::change(&schema, change), body.sent.len());
            header_bytes += header_len(&body);
        }
    }
    ensure!(saved.count > 100, "only {} single changes have arrived", saved.count);
    let note = format!(
        "{} single-change messages of users and orders (inserts, updates, deletes) as sent: {}; headers are another {} B",
        thousands(saved.count as i64),
        saved.averages_text(),
        header_bytes / saved.count
    );
    row("bytes_change_saved", vec![saved.percent()], note)
}

/// The length of the headers as NATS writes them.
fn header_len(body: &Body) -> usize {
    let lines = body
        .headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    lines
        .map(|(name, value)| AsRef::<str>::as_ref(name).len() + value.as_str().len() + 4)
        .sum::<usize>()
        + 14
}

/// A snapshot as the gateway sent it, and some of its rows one by one.
async fn measure_snapshot(site: &Site, table: &str) -> Result<(Saved, Saved)> {
    let (meta, _) = snapshot::take(site, table).await?;
    let prefix = format!("init.snap.{table}.{}.", meta.start.snapshot_id);
    let mut messages = stream::read_messages(&site.broker, "INIT").await;
    messages.retain(|message| message.subject.starts_with(&prefix));
    let mut opener = Opener::new(&site.broker).await;
    let mut whole = Saved::default();
    let mut single = Saved::default();
    for body in stream::join_bodies(messages) {
        let named = body.headers.get(DICT).context("a chunk without dictionary")?;
        let mut alone = Alone::new(&opener.dictionary(named.as_str()).await)?;
        let opened = opener.open(&body).await;
        let chunk = decode_chunk(&opened, meta.start.columns.len(), &Caps::default())?;
        whole.sent += body.sent.len();
        for row in chunk.into_rows() {
            let map = maps::row(&meta.start.columns, &row);
            whole.add(map, 0);
            if single.count < SINGLE_ROWS {
                single.add(map, alone.compressed_len(&row)?);
            }
        }
    }
    ensure!(whole.count as i64 == ROWS, "{} rows of {table} instead of {ROWS}", whole.count);
    Ok((whole, single))
}

/// Compresses single rows, with only the table's dictionary.
struct Alone {
    compressor: Compressor,
    packed: Vec<u8>,
    frame: Vec<u8>,
}

impl Alone {
    fn new(dictionary: &Dictionary) -> Result<Alone> {
        let compressor = Compressor::new(THOROUGH_LEVEL, Some(dictionary))?;
        Ok(Alone { compressor, packed: vec![], frame: vec![] })
    }

    fn compressed_len(&mut self, row: &[Value<'_>]) -> Result<usize> {
        self.packed.clear();
        self.frame.clear();
        Value::pack_row(row, &mut self.packed);
        self.compressor.compress(&self.packed, &mut self.frame)?;
        Ok(self.frame.len().min(self.packed.len()))
    }
}
