//! How much slower a backlog of users reaches the stream with the guest `users` than without. The
//! note has the same for a snapshot.
//!
//! Both sides begin with a copy of one slot. The time starts when Postgres reports the slot as
//! active; the guest is compiled before that. Rates count the changes that Postgres sends, not the
//! published ones.

use std::{fs, io::ErrorKind};

use anyhow::{Context, Result, ensure};
use walgate_tests::Site;
use walgate_wire::Lsn;

use super::{FILE, GUEST};
use crate::{
    destination::{self, Contents},
    ground::{Ground, renew_broker},
    median,
    process::cpu_seconds,
    report::{Measured, rate, thousands},
    row, slots, snapshot, users,
};

/// Rows that exist before the backlog; the backlog updates some of them.
const ROWS_BEFORE: u64 = 50_000;
/// The slot of one run.
const RUN: &str = "run";

pub async fn measure(ground: &Ground) -> Result<Vec<Measured>> {
    let mut backlog = Backlog::create(ground).await?;
    let mut without = vec![];
    let mut with = vec![];
    for _ in 0..ground.pick(3, 5) {
        without.push(backlog.run(false).await?);
        with.push(backlog.run(true).await?);
    }
    let words = |runs: &[Run]| {
        let of = |get: fn(&Run) -> f64| median(&runs.iter().map(get).collect::<Vec<_>>());
        let stored = runs.last().context("nothing was measured")?.stored;
        anyhow::Ok(format!(
            "{} at {:.1} CPU s ({} changes, {:.1} MB sent)",
            rate(of(|run| run.rate)?),
            of(|run| run.cpu)?,
            thousands(stored.changes as i64),
            stored.bytes as f64 / 1e6,
        ))
    };
    let note = format!(
        "{} changes of users with {} columns in transactions of 10 (7 inserts, 3 updates), TCP: with the guest {}, which \
         drops the rows of one in five, masks e-mail and hides password_hash; without {}. {}",
        thousands(backlog.changes as i64),
        users::COLUMNS,
        words(&with)?,
        words(&without)?,
        snapshots(ground).await?,
    );
    let ratios = with.iter().zip(&without).map(|(with, without)| with.rate / without.rate);
    Ok(vec![row("guest_ratio", ratios.collect(), note)?])
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// Changes per second, as Postgres sends them.
    rate: f64,
    /// CPU seconds of the gateway since its start, including compilation.
    cpu: f64,
    stored: Contents,
}

struct Backlog {
    site: Site,
    end: Lsn,
    changes: u64,
    /// The number of rows that the guest keeps.
    kept: u64,
}

impl Backlog {
    async fn create(ground: &Ground) -> Result<Backlog> {
        let site = ground.new_site().await;
        users::create(&site.database, ROWS_BEFORE).await;
        slots::create(&site.database).await;
        let transactions = ground.pick(12_000, 40_000);
        let first = ROWS_BEFORE + 1;
        users::write_transactions(&site.database, first, ROWS_BEFORE, transactions).await;
        let end = users::write_last(&site.database).await?;
        let changes = transactions * users::CHANGES_PER_TRANSACTION + 1;
        // An update of a filtered row is published as a delete, because consumers may hold the row.
        let updates = transactions * users::UPDATES_PER_TRANSACTION + 1;
        let kept = users::kept_above(&site.database, ROWS_BEFORE).await? + updates;
        Ok(Backlog { site, end, changes, kept })
    }

    async fn run(&mut self, guest: bool) -> Result<Run> {
        renew_broker(&mut self.site).await;
        let Backlog { site, end, changes, kept } = self;
        let (leave, columns) =
            if guest { (*kept, users::COLUMNS - 1) } else { (*changes, users::COLUMNS) };
        install(site, guest)?;
        slots::copy(&site.database, RUN).await;
        let progress = destination::watch_progress(&site.broker).await?;
        let gateway = site.gateway(&[users::TABLE]).set_env("POSTGRES_SLOT", RUN).spawn();
        let in_use = slots::in_use(&site.database, RUN).await?;
        let stored_at = destination::wait_until_stored(&site.broker, progress, *end).await?;
        let cpu = cpu_seconds(gateway.program().pid())?;
        drop(gateway);
        let stored = destination::read_contents(&site.broker, columns).await?;
        ensure!(
            stored.changes == leave,
            "{} changes in the stream instead of {leave}",
            stored.changes
        );
        slots::remove(&site.database, RUN).await;
        let seconds = (stored_at - in_use.since_nanos) as f64 / 1e9;
        Ok(Run { rate: *changes as f64 / seconds, cpu, stored })
    }
}

/// Installs the guest in the gateway's folder, or removes it.
fn install(site: &Site, guest: bool) -> Result<()> {
    if guest {
        site.drop_guest(GUEST, FILE);
        return Ok(());
    }
    match fs::remove_file(site.folder().join("guests").join(FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("taking the guest away")
        }
        _ => Ok(()),
    }
}

/// A snapshot with the guest and one without, in turns. Each comes from its own gateway and
/// database.
async fn snapshots(ground: &Ground) -> Result<String> {
    let rows = ground.pick(150_000, 500_000);
    let plain = ground.new_site().await;
    let guarded = ground.new_site().await;
    users::create(&plain.database, rows).await;
    users::create(&guarded.database, rows).await;
    let kept = users::kept_above(&guarded.database, 0).await?;
    install(&guarded, true)?;
    let _plain = plain.gateway(&[users::TABLE]).start().await;
    let _guarded = guarded.gateway(&[users::TABLE]).start().await;
    let mut without = vec![];
    let mut with = vec![];
    for _ in 0..3 {
        for (site, leave, runs) in [(&plain, rows, &mut without), (&guarded, kept, &mut with)] {
            let (meta, seconds) = snapshot::take(site, users::TOKEN).await?;
            ensure!(meta.row_count == leave, "{} rows instead of {leave}", meta.row_count);
            runs.push(rows as f64 / seconds);
        }
    }
    let ratios: Vec<_> = with.iter().zip(&without).map(|(with, without)| with / without).collect();
    Ok(format!(
        "Snapshot of {} rows, 2 workers: {:.2}, with it {}, without {}",
        thousands(rows as i64),
        median(&ratios)?,
        rate(median(&with)?),
        rate(median(&without)?),
    ))
}
