//! `walgate guest list`: the guests of a running gateway, from its HTTP server.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;

use crate::commands::Usage;
use walgate_host::observe::counts::TableCounts;

const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Show the guests of a gateway: table, guest and version, state, calls, rows, time per row, rows
/// dropped and failed, last error.
///
/// A call is one batch. Counts and error are those of the active guest, since it became active or
/// the gateway started. If the table is suspended, or the file in the folder is not in use, the
/// reason replaces the error. Exit code 3 if no gateway answers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the gateway listens: http.listen of its configuration
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8088")]
    url: Url,
}

/// The reply of `/readyz`.
#[derive(Debug, Deserialize)]
struct Ready {
    ready: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    tables: BTreeMap<String, TableCounts>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    if args.url.scheme() != "http" || args.url.host_str().is_none() {
        let what = format!("{}: the gateway speaks http, as in http://127.0.0.1:8088", args.url);
        return Err(Usage(what).into());
    }
    let asked = timeout(PATIENCE, ask(&args.url)).await;
    let answer =
        asked.unwrap_or_else(|_| bail!("it does not answer within {} s", PATIENCE.as_secs()));
    let ready = match answer {
        Ok(ready) => ready,
        Err(error) => {
            eprintln!(
                "walgate: the gateway at {}: {error:#}; does it run, and is that its http.listen?",
                args.url
            );
            return Ok(ExitCode::from(3));
        }
    };
    if !ready.ready {
        eprintln!("the gateway does not stream: {}", ready.reason.as_deref().unwrap_or("starting"));
    }
    println!("{}", shown(&ready.tables));
    Ok(ExitCode::SUCCESS)
}

/// One request needs no client library: with HTTP 1.0 the reply ends with the connection.
async fn ask(url: &Url) -> Result<Ready> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    // Only in a URL, an IPv6 address has brackets.
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = TcpStream::connect((address, port)).await?;
    let question = format!("GET /readyz HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = vec![];
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n").context("what it answers is no HTTP")?;
    serde_json::from_str(body).context("what answers is no Walgate gateway")
}

fn shown(tables: &BTreeMap<String, TableCounts>) -> Table {
    let mut out = Table::new();
    out.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let header =
        ["table", "guest", "state", "calls", "rows", "a row", "dropped", "failed", "last error"];
    out.set_header(header);
    for (name, counts) in tables {
        out.add_row(row(name, counts));
    }
    for column in out.column_iter_mut().skip(3).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    out
}

fn row(name: &str, counts: &TableCounts) -> Vec<String> {
    let state = if counts.suspended.is_some() { "suspended" } else { "live" };
    let mut row = vec![name.to_owned()];
    match &counts.guest {
        Some(guest) => {
            row.extend([guest.guest.clone(), state.to_owned()]);
            row.extend([guest.batches, guest.rows].map(|count| count.to_string()));
            row.push(match (guest.micros as f64 * 1000.0, guest.rows) {
                (_, 0) => String::new(),
                (ns, rows) => format!("{:.0} ns", ns / rows as f64),
            });
            row.extend([guest.dropped, guest.failed].map(|count| count.to_string()));
        }
        None => {
            row.extend(["none", state].map(str::to_owned));
            row.extend(["", "", "", "", ""].map(str::to_owned));
        }
    }
    let guest = counts.guest.as_ref();
    let file = guest.and_then(|guest| guest.file_problem.as_deref());
    let file = file.map(|problem| format!("the file there is not in use: {problem}"));
    let failed = guest.and_then(|guest| guest.last_error.clone());
    row.push(counts.suspended.clone().or(file).or(failed).unwrap_or_default());
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let json = r#"{"ready":true,"tables":{
            "plain":{"changes":1},
            "users":{"guest":{"guest":"users 0.1.0","batches":2,"rows":1000,"dropped":3,"failed":1,"micros":50,"last_error":"row 1"}},
            "people":{"guest":{"guest":"users 0.1.0","last_error":"row 1","file_problem":"no wasm"}},
            "t":{"guest":{"guest":"moody 1","batches":0,"rows":0,"dropped":0,"failed":0,"micros":0,"last_error":null},"suspended":"in no mood"}}}"#;
        let ready: Ready = serde_json::from_str(json).unwrap();
        let rows: Vec<String> =
            ready.tables.iter().map(|(name, counts)| row(name, counts).join("|")).collect();
        assert_eq!(
            rows,
            [
                "people|users 0.1.0|live|0|0||0|0|the file there is not in use: no wasm",
                "plain|none|live||||||",
                "t|moody 1|suspended|0|0||0|0|in no mood",
                "users|users 0.1.0|live|2|1000|50 ns|3|1|row 1",
            ]
        );
    }
}
