//! The running gateway: the only place that wires stages and tasks together.
//!
//! First everything is checked, then what is missing is created, then sessions follow one another until the
//! process is asked to stop. A server that is not there is waited for: at the start for a while, later as long as it takes.
//! What happens inside a session is `changes`' business.

use std::{
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinError, JoinSet},
};
use walgate_nats_connect::{Backoff, NatsConnectError, NatsOptions};
use walgate_servers::PrivateNats;
use walgate_wire::{Epoch, TableName, TableState};

use crate::{
    assets::{dictionaries, guests, registry::Assets, watch::Writable},
    cdc::{
        open::{self, Past},
        session,
    },
    config::{Config, PostgresConfig},
    context::Gateway,
    error::SessionError,
    guest::{Engine, GuestError, Limits},
    jetstream::{
        revisions::NamedRevisions,
        streams::{self, BrokerError, Streams},
    },
    observe::{http, status::Status},
    policy::{Action, action},
    postgres::{
        PostgresError,
        catalog::Catalog,
        slot::{self, Preflight, PreflightRequest},
    },
    schema_registry,
    snapshot::requests,
    tables::TableEvent,
    wal_budget,
};

/// A session that lasted this long was healthy: the next failure begins with the shortest pause.
const HEALTHY: Duration = Duration::from_secs(30);
/// How often it is looked whether the private NATS server lives.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What the feedback task needs for its last word.
const LAST_STATUS: Duration = Duration::from_millis(100);
/// Between attempts to start, or to stream again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Why the gateway ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("http.listen {address}: {source}; choose another address")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("the private NATS server: {0}. Or set nats.url to a server that runs")]
    PrivateNats(String),
    #[error(transparent)]
    Guests(#[from] GuestError),
    /// A server was not there, or not as it has to be, before the first session.
    #[error(transparent)]
    Start(SessionError),
    #[error(transparent)]
    Session(SessionError),
}

impl<E: Into<SessionError>> From<E> for RunError {
    fn from(error: E) -> Self {
        RunError::Start(error.into())
    }
}

impl RunError {
    /// As documented in `walgate --help`.
    pub fn exit_code(&self) -> u8 {
        use SessionError::{Broker, Source};
        match self {
            RunError::Listen { .. }
            | RunError::Start(Source(PostgresError::Url(_)))
            | RunError::Start(Broker(BrokerError::Access(NatsConnectError::Setting { .. }))) => 2,
            RunError::Start(_) | RunError::Guests(_) | RunError::PrivateNats(_) => 3,
            RunError::Session(_) => 4,
        }
    }

    /// Whether a start that failed so may succeed a moment later.
    fn may_pass(&self) -> bool {
        use {BrokerError::Access, SessionError::Broker};
        match self {
            RunError::Start(Broker(Access(error))) => error.is_transient(),
            RunError::Start(error) => action(error) == Action::Retry,
            _ => false,
        }
    }
}

/// Completes on SIGTERM or SIGINT.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("asked to stop");
}

/// Runs the gateway until `stop` completes or only an operator can help.
pub async fn run(
    config: Config,
    status: Status,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let address = config.http.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "http.listen is not loopback: whoever reaches it sees tables, positions and errors, though no rows; it has no TLS and no password");
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(http::serve(listener, status.clone()));
    let (stop_sender, mut stopped) = watch::channel(false);
    tasks.spawn(async move {
        stop.await;
        let _ = stop_sender.send(true);
        std::future::pending().await
    });
    let Some(started) = patiently(&config, &status, &mut stopped).await? else { return Ok(()) };
    sessions(started, stopped).await
}

/// A gateway that is ready for its first session. What runs beside the sessions ends when this is dropped.
struct Started {
    gateway: Gateway,
    /// The epoch of the session that streams, if one does.
    active: watch::Sender<Option<Epoch>>,
    _tasks: JoinSet<()>,
    private: Option<PrivateNats>,
}

/// Starts, and starts again for as long as the servers are given to come up; `None`: it was asked to stop meanwhile.
async fn patiently(
    config: &Config,
    status: &Status,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Started>, RunError> {
    let began = Instant::now();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let started = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            started = Box::pin(start(config, status)) => started,
        };
        match started {
            Err(error) if error.may_pass() && began.elapsed() < config.start_wait => {
                status.set_problem(Some(error.to_string()));
                let pause = backoff.next_delay();
                tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "not started");
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return Ok(None),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            ended => return ended.map(Some),
        }
    }
}

async fn start(config: &Config, status: &Status) -> Result<Started, RunError> {
    let catalog = Catalog::connect(&config.postgres).await?;
    let preflight = preflight(&catalog, config).await?;
    let private = start_private_nats(config).await?;
    let access = private.as_ref().map(|private| NatsOptions::from(private.url()));
    let access = access.or(config.nats.access.clone()).unwrap_or_default();
    let client = streams::connect(&access).await?;
    let streams = Box::pin(Streams::ensure(&client, &config.nats, &config.tables)).await?;
    slot::ensure_publication(&catalog, &preflight).await?;

    let assets = Assets::default();
    let version = preflight.server_version;
    let gateway = Gateway::new(config.clone(), streams, assets, status.clone(), version);
    // Before anything is put into a bucket.
    NamedRevisions::read(&gateway).await?.pass_over_lost(&gateway).await?;
    let mut tasks = JoinSet::new();
    let mut dictionaries = dictionaries::folder(&gateway);
    dictionaries.load().await;
    tasks.spawn(dictionaries.follow());
    let Config { guests: limits, data_dir, .. } = &gateway.config;
    Writable::default().look_at("data_dir, which holds compiled guests,", data_dir);
    let engine = Engine::new(Limits::of(limits), Some(&data_dir.join("guests")))?;
    let mut guests = guests::folder(&gateway, engine).await?;
    guests.load().await;
    tasks.spawn(guests.follow());
    let (active, is_active) = watch::channel(None);
    tasks.spawn(requests::serve(gateway.clone(), is_active));
    tasks.spawn(wal_budget::watch(gateway.clone()));
    publish_schemas(&gateway, catalog).await?;
    Ok(Started { gateway, active, _tasks: tasks, private })
}

/// Everything that Postgres has to allow is checked before anything is changed.
async fn preflight(catalog: &Catalog, config: &Config) -> Result<Preflight, PostgresError> {
    let tables: Vec<TableName> = config.tables.iter().map(|table| table.name.clone()).collect();
    let PostgresConfig { slot, publication, .. } = &config.postgres;
    let wanted = PreflightRequest { slot, publication, tables: &tables };
    let found = slot::run_preflight(catalog, wanted).await?;
    found.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(found)
}

/// Without `nats.url` the gateway brings its own server, whose data lies in `data_dir`. It stops when it is dropped.
async fn start_private_nats(config: &Config) -> Result<Option<PrivateNats>, RunError> {
    if config.nats.access.is_some() {
        return Ok(None);
    }
    let store_dir = config.data_dir.join("nats");
    let port = config.nats.port;
    let started = tokio::task::spawn_blocking(move || start_nats(&store_dir, port)).await;
    let server = started
        .map_err(|e| RunError::PrivateNats(e.to_string()))?
        .map_err(|e| RunError::PrivateNats(e.to_string()))?;
    tracing::info!(url = server.url(), "private NATS server");
    Ok(Some(server))
}

fn start_nats(store_dir: &Path, port: u16) -> walgate_servers::Result<PrivateNats> {
    let explicit = crate::config::nats_server_program();
    let found = walgate_servers::find_nats(explicit.as_deref())?;
    let options = walgate_servers::NatsOptions {
        store_dir: Some(store_dir.to_owned()),
        port: Some(port),
        ..Default::default()
    };
    PrivateNats::start(&found.bin, options)
}

/// Every configured table has a schema before anyone asks, behind the guest that is live from the start.
async fn publish_schemas(gateway: &Gateway, mut catalog: Catalog) -> Result<(), RunError> {
    let tables = &gateway.config.tables;
    let known = gateway.schemas.latest_of(tables.iter().map(|table| &table.token)).await?;
    // Nothing streams yet, so there are no effects.
    gateway.on_table_event(TableEvent::GatewayStarted);
    for (table, known) in tables.iter().zip(known) {
        if known.is_none_or(|schema| schema.state == TableState::Dropped) {
            schema_registry::register_or_suspend(gateway, &mut catalog, table).await?;
        }
    }
    Ok(())
}

/// One session after the other.
async fn sessions(mut started: Started, mut stop: watch::Receiver<bool>) -> Result<(), RunError> {
    let Started { gateway, active, private, .. } = &mut started;
    let past = Past::default();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = Box::pin(one_session(gateway, active, &mut stop, &past)) => ended,
            () = ends(private) => Err(SessionError::Task("the private NATS server has ended".to_owned())),
        };
        gateway.status.set_streaming(false);
        let _ = active.send(None);
        let Err(error) = ended else { return Ok(()) };
        gateway.status.set_problem(Some(error.to_string()));
        if action(&error) == Action::Halt {
            return Err(RunError::Session(error));
        }
        if began.elapsed() > HEALTHY {
            backoff.reset();
        }
        let pause = backoff.next_delay();
        tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "not streaming");
        if let Some(server) = private.as_mut()
            && server.has_ended()
        {
            let again = tokio::task::block_in_place(|| server.start_again());
            again.map_err(|error| RunError::PrivateNats(error.to_string()))?;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Completes when the private server has ended by itself.
async fn ends(private: &mut Option<PrivateNats>) {
    let Some(server) = private else { return std::future::pending().await };
    while !server.has_ended() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn one_session(
    gateway: &Gateway,
    active: &watch::Sender<Option<Epoch>>,
    stop: &mut watch::Receiver<bool>,
    past: &Past,
) -> Result<(), SessionError> {
    let held = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
        held = open::hold(gateway) => held,
    };
    let (held, feedback) = held?;
    let mut feedback = tokio::spawn(feedback.run(gateway.status.clone()));
    let _abort = AbortOnDrop(feedback.abort_handle());
    let opened = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
        ended = &mut feedback => return Err(lost(ended)),
        opened = open::open(gateway, held, past, unix_seconds()) => opened,
    };
    let (epoch, mut session) = opened?;
    let _ = active.send(Some(epoch));
    gateway.status.set_streaming(true);
    tracing::info!(%epoch, slot = gateway.config.postgres.slot, "streaming");
    let sequence = session.acknowledged_sequence();
    let stopped = stop.clone();
    // A task of its own: what the runtime itself waits for is woken across threads, here at every frame.
    let mut running = tokio::spawn(async move { session.run(stopped).await });
    let _abort_running = AbortOnDrop(running.abort_handle());
    let ended = tokio::select! {
        ended = &mut running => ended.unwrap_or_else(|error| Err(SessionError::Task(error.to_string()))),
        ended = feedback => {
            // What it is about to send is sent before the next session looks where the stream ends.
            running.abort();
            let _ = running.await;
            Err(lost(ended))
        }
        () = overdue(stop) => {
            tracing::warn!("what is under way is not acknowledged in time; the next start sends it again");
            Ok(())
        }
    };
    past.acknowledged.store(sequence(), Relaxed);
    if ended.is_ok() {
        // Postgres is still told what the last acknowledgements made durable.
        tokio::time::sleep(LAST_STATUS).await;
    }
    ended
}

/// Why the feedback loop has ended.
fn lost(ended: Result<PostgresError, JoinError>) -> SessionError {
    ended.map_or_else(|error| SessionError::Task(error.to_string()), SessionError::from)
}

/// A session that was asked to stop and waits for a server has no more time.
async fn overdue(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(session::DRAIN + LAST_STATUS).await;
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn unix_seconds() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as u32)
}
