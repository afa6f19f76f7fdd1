//! Starts, supervises and ends gateway and replica of the demo. The stages in between are in
//! `stages`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    board::Board,
    figures::{count, seconds},
    gateway,
    guests::Guests,
    replica::Replica,
    shop::Shop,
    site::Site,
    stages::Stages,
    summary::Report,
};
use walgate_verify::database::connect;

/// The time limit for gateway and consumer to end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The length of each part.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub without_dictionaries: Duration,
    /// For all live changes; `None`: until the reader ends it.
    pub total: Option<Duration>,
}

/// A running demo. Dropping it ends all programs.
pub struct Play {
    /// Gateway and consumer; neither ends by itself without an error.
    tasks: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
    stages: Stages,
}

impl Play {
    /// Fills the shop and starts gateway and replica.
    pub async fn begin(
        site: Site,
        orders: u32,
        guests: Option<&Path>,
        board: &Board,
    ) -> Result<Play> {
        let guests = guests.map(|built| Guests::install(built, &site)).transpose()?;
        let config = gateway::config(&site);
        let shop = fill(Shop::of_orders(orders), &site, board).await?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(gateway::run(config.clone(), board.status().clone(), stopped.clone()));
        let (replica, consumer) = Replica::open(&site).await?;
        let status = board.status().clone();
        tasks.spawn(async move {
            // The consumer reads the gateway's buckets and streams, so they have to exist.
            gateway::ready(&status).await?;
            consumer.run(stopped).await
        });
        Ok(Play {
            tasks,
            stop,
            stages: Stages { board: board.clone(), config, shop, replica, site, guests },
        })
    }

    pub async fn perform(
        &mut self,
        timing: Timing,
        quits: watch::Receiver<bool>,
    ) -> Result<Report> {
        let Play { tasks, stages, .. } = self;
        // Biased: a failure explains why a stage does not end.
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => Err(why(ended)),
            report = stages.perform(timing, quits) => report,
        }
    }

    /// The addresses of all servers and files.
    pub fn addresses(&self) -> String {
        let Stages { site, .. } = &self.stages;
        format!(
            "Postgres  psql '{}'\nNATS      {}\nGateway   http://{}/readyz\nReplica   sqlite3 {}\nFolder    {}  (drop a .zstd.dict in)\nGuests    {}  (drop a .wasm in)",
            site.postgres.url(super::site::DATABASE),
            site.nats.url(),
            site.http,
            site.replica().display(),
            site.dictionaries().display(),
            site.guests().display(),
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

async fn fill(shop: Shop, site: &Site, board: &Board) -> Result<Shop> {
    board.set_stage(format!("loading {} orders into Postgres", count(shop.orders as u64)));
    let begun = Instant::now();
    let postgres = connect(&site.postgres_url()).await?;
    tokio::spawn(async move { shop.create(&postgres).await }).await??;
    board.event(format!(
        "{} orders, {} users and {} products loaded in {}",
        count(shop.orders as u64),
        count(shop.users as u64),
        count(shop.products as u64),
        seconds(begun.elapsed())
    ));
    Ok(shop)
}
