//! How fast a backlog of changes reaches the stream, compared with pg_recvlogical, which discards
//! the same changes.
//!
//! "Live" is measured on a backlog: a writer on the same two cores would be the limit. Both sides
//! begin with a copy of one slot. The time starts when Postgres reports the slot as active.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use walgate_tests::Site;
use walgate_wire::Lsn;

use crate::{
    destination::{self, Contents},
    ground::{Ground, renew_broker},
    median, orders,
    process::{LOOK_EVERY, cpu_seconds},
    report::{Measured, rate, thousands},
    row, slots,
};

pub const TCP_IDS: &[&str] = &["live_ratio", "live_cpu_ratio", "catchup_ratio"];
pub const UNIX_IDS: &[&str] = &["live_unix_ratio", "live_unix_cpu_ratio", "catchup_unix_ratio"];

/// Rows that exist before the backlog; the backlog updates some of them.
const ROWS_BEFORE: u64 = 100_000;
const COLUMNS: usize = 11;

pub async fn over_tcp(ground: &Ground) -> Result<Vec<Measured>> {
    measure(ground, TCP_IDS, false).await
}

pub async fn over_unix_socket(ground: &Ground) -> Result<Vec<Measured>> {
    measure(ground, UNIX_IDS, true).await
}

async fn measure(ground: &Ground, ids: &[&'static str], unix: bool) -> Result<Vec<Measured>> {
    let mut backlog = Backlog::create(ground, unix).await?;
    let transactions = ground.pick(15_000, 40_000);
    let last_id = ROWS_BEFORE + 7 * transactions;
    let end = {
        let database = &backlog.site.database;
        orders::write_transactions(database, ROWS_BEFORE + 1, ROWS_BEFORE, transactions).await;
        orders::write_last(database).await?
    };
    let changes = transactions * orders::CHANGES_PER_TRANSACTION + 1;
    let runs = backlog.alternate(end, changes, ground.pick(2, 3)).await?;
    let mut note = format!(
        "{} changes in transactions of 10 (7 inserts, 3 updates), {}: {}",
        thousands(changes as i64),
        if unix { "both over a unix socket" } else { "both over TCP" },
        runs.summary()?,
    );
    if !ground.quick {
        let transactions = 150_000;
        // From now on the measured changes lie behind the slot.
        backlog
            .site
            .database
            .sql(&format!("select pg_replication_slot_advance('{}', '{end}')", slots::SLOT))
            .await;
        let end = {
            let database = &backlog.site.database;
            orders::write_single_changes(database, last_id + 1, ROWS_BEFORE, transactions).await;
            orders::write_last(database).await?
        };
        // The advanced slot still holds the last change of the first backlog.
        let single = backlog.alternate(end, transactions + 2, 2).await?;
        note += &format!(
            ". In transactions of one change: {:.2}, {}",
            median(&single.ratios())?,
            single.summary()?
        );
    }
    let catchup = "the gateway has no faster path for a backlog yet, it streams: the same runs as the live ratio";
    let cpu = "CPU of the gateway from its start ÷ CPU of its walsender, same runs; async-nats and zstd included";
    let [live_id, cpu_id, catchup_id] = ids else { bail!("three rows") };
    Ok(vec![
        row(live_id, runs.ratios(), note)?,
        row(cpu_id, runs.ours.iter().map(|run| run.cpu / run.walsender_cpu).collect(), cpu)?,
        row(catchup_id, runs.ratios(), catchup)?,
    ])
}

/// One run of one side.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Changes per second.
    rate: f64,
    /// CPU seconds of the receiver.
    cpu: f64,
    walsender_cpu: f64,
    stored: Contents,
}

#[derive(Default)]
struct Runs {
    limit: Vec<Run>,
    ours: Vec<Run>,
}

impl Runs {
    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.limit).map(|(ours, limit)| ours.rate / limit.rate).collect()
    }

    fn summary(&self) -> Result<String> {
        let of =
            |runs: &[Run], get: fn(&Run) -> f64| median(&runs.iter().map(get).collect::<Vec<_>>());
        let stored = self.ours.last().context("nothing was measured")?.stored;
        Ok(format!(
            "{} with {:.1} CPU s (its walsender {:.1}), {} messages and {} of progress, {:.0} B a change; \
             pg_recvlogical {} (its walsender {:.1} CPU s)",
            rate(of(&self.ours, |run| run.rate)?),
            of(&self.ours, |run| run.cpu)?,
            of(&self.ours, |run| run.walsender_cpu)?,
            thousands(stored.messages as i64),
            thousands(stored.progress_messages as i64),
            stored.bytes as f64 / stored.changes as f64,
            rate(of(&self.limit, |run| run.rate)?),
            of(&self.limit, |run| run.walsender_cpu)?,
        ))
    }
}

/// A database with a slot of which only copies are read.
struct Backlog {
    site: Site,
    url: String,
    pg_recvlogical: PathBuf,
}

impl Backlog {
    async fn create(ground: &Ground, unix: bool) -> Result<Backlog> {
        let site = ground.new_site().await;
        orders::create(&site.database, ROWS_BEFORE).await;
        slots::create(&site.database).await;
        let url = if unix { ground.unix_url(&site) } else { site.database.url() };
        Ok(Backlog { site, url, pg_recvlogical: ground.program("pg_recvlogical") })
    }

    /// Runs both sides in turns: A B A B.
    async fn alternate(&mut self, end: Lsn, changes: u64, times: usize) -> Result<Runs> {
        let mut runs = Runs::default();
        for _ in 0..times {
            runs.limit.push(self.run_limit(end, changes).await?);
            runs.ours.push(self.run_ours(end, changes).await?);
        }
        Ok(runs)
    }

    async fn run_limit(&self, end: Lsn, changes: u64) -> Result<Run> {
        slots::copy(&self.site.database, "limit").await;
        let mut command = Command::new(&self.pg_recvlogical);
        command.args(["--start", "--no-loop", "--slot=limit", "-f", "/dev/null", "-d", &self.url]);
        command.arg(format!("--endpos={end}"));
        command.args([
            "-o",
            "proto_version=1",
            "-o",
            "publication_names=walgate",
            "-o",
            "binary=true",
        ]);
        let mut child = Killed(command.stdin(Stdio::null()).spawn().context("pg_recvlogical")?);
        let slots::InUse { since: began, walsender, .. } =
            slots::in_use(&self.site.database, "limit").await?;
        let mut cpu = 0.0;
        let mut walsender_cpu = 0.0;
        let status = loop {
            if let Some(status) = child.0.try_wait()? {
                break status;
            }
            // At the end both processes are gone: the last sample counts.
            cpu = cpu_seconds(child.0.id()).unwrap_or(cpu);
            walsender_cpu = cpu_seconds(walsender).unwrap_or(walsender_cpu);
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let rate = changes as f64 / began.elapsed().as_secs_f64();
        ensure!(status.success(), "pg_recvlogical ended with {status}");
        slots::remove(&self.site.database, "limit").await;
        Ok(Run { rate, cpu, walsender_cpu, stored: Contents::default() })
    }

    async fn run_ours(&mut self, end: Lsn, changes: u64) -> Result<Run> {
        renew_broker(&mut self.site).await;
        slots::copy(&self.site.database, "ours").await;
        let progress = destination::watch_progress(&self.site.broker).await?;
        let options = self.site.gateway(&[orders::TABLE]).with_postgres_url(&self.url);
        let gateway = options.set_env("POSTGRES_SLOT", "ours").spawn();
        let slots::InUse { since_nanos: began, walsender, .. } =
            slots::in_use(&self.site.database, "ours").await?;
        let stored_at = destination::wait_until_stored(&self.site.broker, progress, end).await?;
        let cpu = cpu_seconds(gateway.program().pid())?;
        let walsender_cpu = cpu_seconds(walsender)?;
        drop(gateway);
        let stored = destination::read_contents(&self.site.broker, COLUMNS).await?;
        ensure!(
            stored.changes == changes,
            "{} changes in the stream instead of {changes}",
            stored.changes
        );
        slots::remove(&self.site.database, "ours").await;
        let seconds = (stored_at - began) as f64 / 1e9;
        Ok(Run { rate: changes as f64 / seconds, cpu, walsender_cpu, stored })
    }
}

/// A process that is killed when its measurement ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
