//! `walgate demo`: the whole system on one machine. At the end it proves that the replica equals
//! its source.
//!
//! This file is the order of events. Each stage is in a file beside it. Gateway, consumer and
//! comparison are those of `walgate run`, `replicate` and `verify`.

mod board;
mod dictionaries;
mod figures;
mod flow;
mod gateway;
mod guests;
pub mod held_log;
mod latency;
mod meter;
mod play;
mod replica;
pub mod shop;
mod site;
mod stages;
mod summary;
mod view;
mod writer;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use tokio::sync::watch;

use board::Board;
use play::{Play, Timing};
use site::{Site, Wanted};
use view::{Style, View};

/// A gateway, a broker, a small shop and a SQLite replica, all private and gone afterwards.
///
/// The demo loads a shop with users, products and orders, and keeps a writer busy. It replicates
/// everything into a SQLite file, and drops dictionaries and guests in meanwhile. At the end it
/// compares the replica with what its guests let through. Exit code 1 if they differ.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Unattended and under a minute; also checks that the dictionaries took effect
    #[arg(long)]
    check: bool,
    /// How long changes flow before the demo ends itself [default: until a key is pressed; 16 with
    /// --check or without a terminal]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Leave servers, gateway and replica running at the end and print where they are, until ctrl-c
    #[arg(long)]
    keep: bool,
    /// Orders that the shop begins with; a tenth as many users
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    orders: u32,
    /// Keep servers' data, replica and dictionaries in this new directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Folder with the demo's guests, users.wasm and so on, as `cargo xtask guests` builds them;
    /// without it rows leave as they are
    #[arg(long, value_name = "DIR", env = "WALGATE_GUEST_FILES")]
    guests: Option<PathBuf>,
    /// Directory with Postgres' programs; found by itself if absent
    #[arg(long, value_name = "DIR", env = "WALGATE_POSTGRES_BIN")]
    postgres_bin: Option<PathBuf>,
    /// The nats-server program; found by itself if absent
    #[arg(long, value_name = "FILE", env = "WALGATE_NATS_SERVER")]
    nats_server: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let style = Style::fitting(args.check);
    let board = Board::new();
    let (quit, quits) = watch::channel(false);
    tokio::spawn(quit_on_signal(quit.clone()));
    let view = View::show(style, board.clone(), quit);
    let outcome = stage(&args, style, &board, quits.clone()).await;
    view.end();
    let (play, report) = outcome?;
    if style == Style::Screen {
        summary::print_events(&board);
    }
    let passed = summary::print(&report, args.check);
    if args.keep {
        keep(&play, quits).await;
    }
    play.end().await?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn quit_on_signal(quit: watch::Sender<bool>) {
    loop {
        walgate_host::supervisor::stop_signal().await;
        let _ = quit.send(true);
    }
}

async fn stage(
    args: &Args,
    style: Style,
    board: &Board,
    quits: watch::Receiver<bool>,
) -> Result<(Play, summary::Report)> {
    board.set_stage("starting private Postgres and NATS");
    let wanted = Wanted {
        postgres_bin: args.postgres_bin.clone(),
        nats_server: args.nats_server.clone(),
        dir: args.dir.clone(),
    };
    let site = tokio::task::spawn_blocking(move || Site::open(&wanted))
        .await
        .context("starting servers")??;
    board.event(format!("private servers run: {}", site.found));
    let mut play = Play::begin(site, args.orders, args.guests.as_deref(), board).await?;
    let report = play.perform(timing(args, style), quits).await?;
    Ok((play, report))
}

/// A third of the time has no dictionaries, so that both halves of the comparison are long enough.
fn timing(args: &Args, style: Style) -> Timing {
    let unattended = (args.check || style == Style::Lines).then_some(16);
    let total = args.seconds.or(unattended).map(Duration::from_secs);
    let without =
        total.map_or(Duration::from_secs(10), |total| (total / 3).min(Duration::from_secs(10)));
    Timing { without_dictionaries: without, total }
}

async fn keep(play: &Play, mut quits: watch::Receiver<bool>) {
    // The key that ended the first part does not end this one.
    quits.mark_unchanged();
    println!("\n{}", play.addresses());
    println!("Everything keeps running, the writer aside. End with ctrl-c.");
    let _ = quits.changed().await;
}
