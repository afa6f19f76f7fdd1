//! The stages of the demo, one after the other: replicate, write, drop dictionaries in, compare.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    board::Board,
    dictionaries,
    figures::{count, ratio, seconds},
    flow::Flow,
    gateway,
    guests::{self, Guests},
    play::Timing,
    replica::Replica,
    shop::{self, Shop},
    site::Site,
    summary::Report,
    writer::{Writer, Written},
};
use walgate_host::config::Config;
use walgate_verify::{Comparison, Question, TableGate, database::connect};

const LOADED_WITHIN: Duration = Duration::from_secs(600);
const DICTIONARIES_LIVE_WITHIN: Duration = Duration::from_secs(15);
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the stages work with.
pub struct Stages {
    pub board: Board,
    pub config: Config,
    pub shop: Shop,
    pub replica: Replica,
    pub site: Site,
    pub guests: Option<Guests>,
}

impl Stages {
    pub async fn perform(
        &mut self,
        timing: Timing,
        mut quits: watch::Receiver<bool>,
    ) -> Result<Report> {
        self.board.set_stage("starting the gateway");
        gateway::ready(self.board.status()).await?;
        let (stop_writer, stopped) = watch::channel(false);
        let mut writer = self.start_writer(stopped).await?;
        self.snapshot().await?;
        let begun = Instant::now();
        self.board.latencies().start();
        self.board.set_stage("live changes, compressed without dictionaries");
        let plain = Some(timing.without_dictionaries);
        let plain = self.watch_changes(&mut writer, plain, &mut quits).await?;
        self.board.event(format!("changes without dictionaries: {}", ratio(plain.all().ratio())));
        let mut trained = Flow::default();
        if !*quits.borrow() {
            self.drop_dictionaries_in().await?;
            self.board.set_stage("live changes, compressed with dictionaries");
            let left = timing.total.map(|total| total.saturating_sub(begun.elapsed()));
            trained = self.watch_changes(&mut writer, left, &mut quits).await?;
            self.board
                .event(format!("changes with dictionaries: {}", ratio(trained.all().ratio())));
            if let Some(guests) = &self.guests {
                guests.swap(&self.board, &self.site).await?;
            }
        }
        let _ = stop_writer.send(true);
        let comparisons = self.compare(writer).await?;
        let leaks = self.guests.as_ref().map(|_| guests::leaks(&self.site.replica()));
        Ok(Report {
            comparisons,
            leaks: leaks.transpose()?,
            counts: self.board.counts(),
            transactions: self.board.transactions(),
            plain,
            trained,
            seen_in_messages: self.replica.dictionaries(),
            latency: self.board.latencies().percentiles(),
        })
    }

    /// Compares once the writer has ended and all changes have arrived.
    async fn compare(&self, writer: JoinHandle<Result<Written>>) -> Result<Vec<Comparison>> {
        self.board.set_stage("the writer stops, the replica catches up");
        let Written { last_order } = writer.await.context("the writer")??;
        self.replica.wait_for_order(last_order, CAUGHT_UP_WITHIN).await?;
        self.board.set_stage("comparing the replica with its source");
        let begun = Instant::now();
        let comparisons =
            walgate_verify::compare(&self.question(walgate_verify::gates(&self.config).await?))
                .await?;
        self.board.event(format!("every row compared in {}", seconds(begun.elapsed())));
        Ok(comparisons)
    }

    fn question(&self, gates: Vec<TableGate>) -> Question {
        Question {
            source: self.config.postgres.clone(),
            replica: self.replica.target(),
            tables: shop::TABLES.map(|table| format!("public.{table}")).into(),
            gates,
        }
    }

    async fn start_writer(
        &self,
        stopped: watch::Receiver<bool>,
    ) -> Result<JoinHandle<Result<Written>>> {
        let postgres = connect(&self.site.postgres_url()).await?;
        let probes = self.board.latencies().follow_in(&self.site.replica());
        let writer = Writer::new(postgres, self.shop, self.board.clone(), probes);
        self.board.event("the writer begins");
        Ok(tokio::spawn(writer.run(stopped)))
    }

    async fn snapshot(&mut self) -> Result<()> {
        self.board.set_stage("snapshots into SQLite, while the writer writes");
        let begun = Instant::now();
        let rows = self.replica.wait_until_live(LOADED_WITHIN).await?;
        self.board.event(format!(
            "{} rows of snapshots loaded in {}; {} transactions were committed meanwhile",
            count(rows),
            seconds(begun.elapsed()),
            count(self.board.transactions())
        ));
        Ok(())
    }

    /// Waits this long, or until the reader ends it. Returns the changes in that time.
    async fn watch_changes(
        &self,
        writer: &mut JoinHandle<Result<Written>>,
        how_long: Option<Duration>,
        quits: &mut watch::Receiver<bool>,
    ) -> Result<Flow> {
        let before = self.board.counts();
        let time_is_up = async {
            match how_long {
                Some(how_long) => tokio::time::sleep(how_long).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ended = writer => {
                ended.context("the writer")??;
                return Err(anyhow!("the writer ended in the middle of the demo"));
            }
            _ = quits.wait_for(|&quit| quit) => {}
            () = time_is_up => {}
        }
        Ok(Flow::between(&before, &self.board.counts()))
    }

    async fn drop_dictionaries_in(&self) -> Result<()> {
        self.board.set_stage("dropping dictionaries into the folder");
        let begun = Instant::now();
        let folder = self.config.compression.dictionaries.clone();
        let shown = folder.display().to_string();
        tokio::task::spawn_blocking(move || dictionaries::drop_into(&folder)).await??;
        loop {
            let counts = self.board.counts();
            let live = counts.iter().filter(|(_, counts)| counts.dictionary_revision > 0);
            let live: Vec<String> = live
                .map(|(token, counts)| format!("{token}@{}", counts.dictionary_revision))
                .collect();
            if live.len() == shop::TABLES.len() {
                let (live, took) = (live.join(", "), seconds(begun.elapsed()));
                self.board.event(format!("dictionaries dropped in and live after {took}: {live}"));
                return Ok(());
            }
            ensure!(
                begun.elapsed() < DICTIONARIES_LIVE_WITHIN,
                "the gateway has not taken the dictionaries from {shown} within {} s",
                DICTIONARIES_LIVE_WITHIN.as_secs()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
