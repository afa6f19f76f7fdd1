//! The stages of the demo, one after the other: load, replicate, write, drop dictionaries in, compare.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use walgate_wire::Token;

use super::{
    board::Board,
    dictionaries,
    figures::{count, ratio, seconds},
    flow::Flow,
    gateway,
    replica::Replica,
    shop::{self, Shop},
    site::Site,
    summary::Report,
    writer::{Writer, Written},
};
use crate::{
    commands::verify::{self, Question},
    config::Config,
    source::catalog::Catalog,
};

const LOADED_WITHIN: Duration = Duration::from_secs(600);
const DICTIONARIES_LIVE_WITHIN: Duration = Duration::from_secs(15);
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What gateway and consumer may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How long each part of the show is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub without_dictionaries: Duration,
    /// Of all live changes; none: until the reader has seen enough.
    pub total: Option<Duration>,
}

/// A running demo. Dropping it ends everything.
pub struct Play {
    /// Gateway and consumer; neither ends by itself unless something is wrong.
    tasks: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
    stages: Stages,
}

impl Play {
    /// Fills the shop and starts gateway and replica.
    pub async fn begin(site: Site, orders: u32, board: &Board) -> Result<Play> {
        let config = gateway::config(&site);
        let shop = fill(Shop::of_orders(orders), &config, board).await?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(gateway::run(config.clone(), board.status().clone(), stopped.clone()));
        let (replica, consumer) = Replica::open(&site).await?;
        let status = board.status().clone();
        tasks.spawn(async move {
            // Whose buckets and streams the consumer reads.
            gateway::ready(&status).await?;
            consumer.run(stopped).await
        });
        Ok(Play {
            tasks,
            stop,
            stages: Stages { board: board.clone(), config, shop, replica, site },
        })
    }

    pub async fn perform(
        &mut self,
        timing: Timing,
        quits: watch::Receiver<bool>,
    ) -> Result<Report> {
        let Play { tasks, stages, .. } = self;
        // Biased: what has failed explains why a stage does not end.
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => Err(why(ended)),
            report = stages.perform(timing, quits) => report,
        }
    }

    /// Where everything can be reached.
    pub fn addresses(&self) -> String {
        let Stages { site, .. } = &self.stages;
        format!(
            "Postgres  psql '{}'\nNATS      {}\nGateway   http://{}/readyz\nReplica   sqlite3 {}\nFolder    {}  (drop a .zstd.dict in)",
            site.postgres.url(super::site::DATABASE),
            site.nats.url(),
            site.http,
            site.replica().display(),
            site.dictionaries().display(),
        )
    }

    /// Ends gateway and consumer, then the servers.
    pub async fn end(mut self) -> Result<()> {
        let _ = self.stop.send(true);
        let ended = tokio::time::timeout(END_WITHIN, async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.context("ending")??;
            }
            Ok(())
        });
        ended.await.unwrap_or_else(|_| {
            Err(anyhow!("gateway or consumer did not end within {} s", END_WITHIN.as_secs()))
        })
    }
}

fn why(ended: Result<Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => anyhow!("gateway or consumer ended in the middle of the demo"),
        Err(error) => anyhow!(error),
    }
}

async fn fill(shop: Shop, config: &Config, board: &Board) -> Result<Shop> {
    board.set_stage(format!("loading {} orders into Postgres", count(shop.orders as u64)));
    let begun = Instant::now();
    shop.create(&Catalog::connect(&config.postgres).await?).await?;
    board.event(format!(
        "{} orders, {} users and {} products loaded in {}",
        count(shop.orders as u64),
        count(shop.users as u64),
        count(shop.products as u64),
        seconds(begun.elapsed())
    ));
    Ok(shop)
}

struct Stages {
    board: Board,
    config: Config,
    shop: Shop,
    replica: Replica,
    site: Site,
}

impl Stages {
    async fn perform(
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
        let left = |total: Duration| total.saturating_sub(begun.elapsed());

        self.board.set_stage("live changes, compressed without dictionaries");
        self.board.latencies().start();
        let plain =
            self.watch_changes(&mut writer, Some(timing.without_dictionaries), &mut quits).await?;
        self.board.event(format!(
            "live changes without dictionaries: compressed {}",
            ratio(plain.all().ratio())
        ));
        let revisions = self.drop_dictionaries_in().await?;
        self.board.set_stage("live changes, compressed with dictionaries");
        let trained = self.watch_changes(&mut writer, timing.total.map(left), &mut quits).await?;
        self.board.event(format!(
            "live changes with dictionaries: compressed {}",
            ratio(trained.all().ratio())
        ));

        self.board.set_stage("the writer stops, the replica catches up");
        let _ = stop_writer.send(true);
        let Written { last_order } = writer.await.context("the writer")??;
        self.replica.wait_for_order(last_order, CAUGHT_UP_WITHIN).await?;
        self.board.set_stage("comparing the replica with its source");
        let compared_at = Instant::now();
        let comparisons = verify::compare(&self.question()).await?;
        self.board.event(format!("compared in {}", seconds(compared_at.elapsed())));
        Ok(Report {
            comparisons,
            counts: self.board.counts(),
            transactions: self.board.transactions(),
            plain,
            trained,
            revisions,
            seen_in_messages: self.replica.dictionaries(),
            latency: self.board.latencies().percentiles(),
        })
    }

    fn question(&self) -> Question {
        Question {
            source: self.config.postgres.clone(),
            replica: self.replica.target(),
            tables: shop::TABLES.map(|table| format!("public.{table}")).into(),
        }
    }

    async fn start_writer(
        &self,
        stopped: watch::Receiver<bool>,
    ) -> Result<JoinHandle<Result<Written>>> {
        let postgres = Catalog::connect(&self.config.postgres).await?;
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

    /// Lets changes flow for so long, or until the reader has seen enough; returns what they were.
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

    /// Returns each table's revision.
    async fn drop_dictionaries_in(&self) -> Result<Vec<(Token, u64)>> {
        self.board.set_stage("dropping dictionaries into the folder");
        let begun = Instant::now();
        let folder = self.config.compression.dictionaries.clone();
        tokio::task::spawn_blocking(move || dictionaries::drop_into(&folder)).await??;
        loop {
            let revisions: Vec<(Token, u64)> = self
                .board
                .counts()
                .into_iter()
                .map(|(token, counts)| (token, counts.dictionary_revision))
                .collect();
            if revisions.len() == shop::TABLES.len()
                && revisions.iter().all(|(_, revision)| *revision > 0)
            {
                let names: Vec<String> = revisions
                    .iter()
                    .map(|(token, revision)| format!("{token}@{revision}"))
                    .collect();
                self.board.event(format!(
                    "dictionaries dropped in and live after {}: {}",
                    seconds(begun.elapsed()),
                    names.join(", ")
                ));
                return Ok(revisions);
            }
            ensure!(
                begun.elapsed() < DICTIONARIES_LIVE_WITHIN,
                "the gateway has not taken the dictionaries from {} within {} s",
                self.config.compression.dictionaries.display(),
                DICTIONARIES_LIVE_WITHIN.as_secs()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
