//! The running gateway: the only place that wires stages and tasks together.
//!
//! First all checks run, then missing objects are created, then sessions follow one another until
//! the process is asked to stop. If Postgres or NATS is unreachable, the start is retried for
//! `start_wait`; later sessions are retried forever. The inside of a session is not known here.

use std::{
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use walgate_nats_connect::{Backoff, NatsConnectError, NatsOptions};
use walgate_servers::PrivateNats;
use walgate_wire::{Epoch, TableName, TableState};

use crate::{
    assets::{dictionaries, guests, watch::PermissionAudit},
    cdc::{
        open::{self, Past},
        session,
    },
    clock::now_seconds,
    config::{Config, PostgresConfig},
    context::Gateway,
    error::SessionError,
    guest::{Engine, GuestError, Limits},
    jetstream::{
        revisions::ReferencedRevisions,
        streams::{JetStreamError, Streams},
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

/// After a session of this length, the next failure begins with the shortest delay.
const HEALTHY_SESSION: Duration = Duration::from_secs(30);
/// How often the private NATS server is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The feedback task needs this long for its last status message.
const LAST_STATUS: Duration = Duration::from_millis(100);
/// Delays between attempts to start, or to stream again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Why the gateway ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("http.listen {address}: {source}; choose another address")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("the private NATS server: {0}. Or set nats.url to a running server")]
    PrivateNats(String),
    #[error(transparent)]
    Guests(#[from] GuestError),
    /// A server was unreachable, or not set up as required, before the first session.
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
        use SessionError::{JetStream, Source};
        match self {
            RunError::Listen { .. }
            | RunError::Start(Source(PostgresError::Url(_)))
            | RunError::Start(JetStream(JetStreamError::Connect(NatsConnectError::Setting {
                ..
            }))) => 2,
            RunError::Start(_) | RunError::Guests(_) | RunError::PrivateNats(_) => 3,
            RunError::Session(_) => 4,
        }
    }

    /// Whether a start that failed with this error may succeed a moment later.
    fn is_transient(&self) -> bool {
        use {JetStreamError::Connect, SessionError::JetStream};
        match self {
            RunError::Start(JetStream(Connect(error))) => error.is_transient(),
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

/// Runs the gateway until `stop` completes, or until an error that only an operator can fix.
pub async fn run(
    config: Config,
    status: Status,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let address = config.http.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "http.listen is not loopback: every client that reaches it sees tables, positions and \
             errors, though no rows; it has no TLS and no password"
        );
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(http::serve(listener, status.clone()));
    let stopped = CancellationToken::new();
    let guard = stopped.clone().drop_guard();
    tasks.spawn(async move {
        stop.await;
        drop(guard);
    });
    let started = start_with_retry(&config, &status, &stopped).await?;
    let Some(started) = started else { return Ok(()) };
    run_sessions(started, &stopped).await
}

/// A gateway that is ready for its first session. Its background tasks end when this is dropped.
struct RunningGateway {
    gateway: Gateway,
    /// The epoch of the streaming session, if there is one.
    active: watch::Sender<Option<Epoch>>,
    _tasks: JoinSet<()>,
    private: Option<PrivateNats>,
}

/// Starts; retries transient failures for `start_wait`. `None`: the process was asked to stop.
async fn start_with_retry(
    config: &Config,
    status: &Status,
    stop: &CancellationToken,
) -> Result<Option<RunningGateway>, RunError> {
    let began = Instant::now();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let started = stop.run_until_cancelled(Box::pin(start(config, status))).await;
        let Some(started) = started else { return Ok(None) };
        match started {
            Err(error) if error.is_transient() && began.elapsed() < config.start_wait => {
                status.set_problem(Some(error.to_string()));
                let delay = backoff.next_delay();
                let retry_in_ms = delay.as_millis() as u64;
                tracing::warn!(%error, retry_in_ms, "startup failed, retrying");
                if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                    return Ok(None);
                }
            }
            ended => return ended.map(Some),
        }
    }
}

async fn start(config: &Config, status: &Status) -> Result<RunningGateway, RunError> {
    let catalog = Catalog::connect(&config.postgres).await?;
    let preflight = run_preflight(&catalog, config).await?;
    let private = start_private_nats(config).await?;
    let options = private.as_ref().map(|private| NatsOptions::from(private.url()));
    let options = options.or(config.nats.access.clone()).unwrap_or_default();
    let streams = Streams::connect(&options, &config.nats, &config.tables).await?;
    slot::ensure_publication(&catalog, &preflight).await?;

    let live_dictionaries = Default::default();
    let version = preflight.server_version;
    let gateway = Gateway::new(config.clone(), streams, live_dictionaries, status.clone(), version);
    // Before the first put into a bucket.
    let tokens = config.tables.iter().map(|table| &table.token);
    let referenced = ReferencedRevisions::read(&gateway.streams, tokens).await?;
    referenced.skip_lost(&gateway.schemas, &gateway.dictionaries).await?;
    let mut tasks = JoinSet::new();
    follow_folders(&gateway, &mut tasks).await?;
    let (active, is_active) = watch::channel(None);
    tasks.spawn(requests::serve(gateway.clone(), is_active));
    let postgres = config.postgres.clone();
    let status = status.clone();
    let set_wal = move |report| status.set_wal(report);
    tasks.spawn(wal_budget::watch(postgres, gateway.wal_pressure.clone(), set_wal));
    publish_schemas(&gateway, catalog).await?;
    Ok(RunningGateway { gateway, active, _tasks: tasks, private })
}

/// Loads dictionaries and guests, and follows their folders from now on.
async fn follow_folders(gateway: &Gateway, tasks: &mut JoinSet<()>) -> Result<(), RunError> {
    let config = &gateway.config;
    let (live, status) = (&gateway.live_dictionaries, &gateway.status);
    let mut dictionaries =
        dictionaries::open_folder(config, &gateway.streams, &gateway.dictionaries, live, status);
    dictionaries.load().await;
    tasks.spawn(dictionaries.follow());
    let data_dir = &config.data_dir;
    PermissionAudit::default().check("data_dir, which holds compiled guests,", data_dir);
    let engine = Engine::new(Limits::of(&config.guests), Some(&data_dir.join("guests")))?;
    let mut guests = guests::open_folder(gateway, engine).await?;
    guests.load().await;
    tasks.spawn(guests.follow());
    Ok(())
}

/// Checks everything that Postgres must allow, before any change.
async fn run_preflight(catalog: &Catalog, config: &Config) -> Result<Preflight, PostgresError> {
    let tables: Vec<TableName> = config.tables.iter().map(|table| table.name.clone()).collect();
    let PostgresConfig { slot, publication, .. } = &config.postgres;
    let wanted = PreflightRequest { slot, publication, tables: &tables };
    let found = slot::run_preflight(catalog, wanted).await?;
    found.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(found)
}

/// Without `nats.url`, starts a private server with its data in `data_dir`. It stops when dropped.
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
    tracing::info!(url = server.url(), "private NATS server started");
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

/// Makes sure that every configured table has a schema, through the guest that is live from the
/// start.
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

/// Runs one session after the other.
async fn run_sessions(
    mut running: RunningGateway,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let RunningGateway { gateway, active, private, .. } = &mut running;
    let past = Past::default();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = Box::pin(run_session(gateway, active, stop, &past)) => ended,
            () = private_server_exited(private) => {
                Err(SessionError::Task("the private NATS server has ended".to_owned()))
            }
        };
        gateway.status.set_streaming(false);
        let _ = active.send(None);
        let Err(error) = ended else { return Ok(()) };
        gateway.status.set_problem(Some(error.to_string()));
        if action(&error) == Action::Halt {
            return Err(RunError::Session(error));
        }
        if began.elapsed() > HEALTHY_SESSION {
            backoff.reset();
        }
        let delay = backoff.next_delay();
        let retry_in_ms = delay.as_millis() as u64;
        tracing::warn!(%error, retry_in_ms, "session ended, reconnecting");
        if let Some(server) = private.as_mut()
            && server.has_ended()
        {
            let again = tokio::task::block_in_place(|| server.start_again());
            again.map_err(|error| RunError::PrivateNats(error.to_string()))?;
        }
        if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return Ok(());
        }
    }
}

/// Completes when the private server has exited by itself.
async fn private_server_exited(private: &mut Option<PrivateNats>) {
    let Some(server) = private else { return std::future::pending().await };
    while !server.has_ended() {
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

async fn run_session(
    gateway: &Gateway,
    active: &watch::Sender<Option<Epoch>>,
    stop: &CancellationToken,
    past: &Past,
) -> Result<(), SessionError> {
    let held = stop.run_until_cancelled(open::hold(gateway)).await;
    let Some(held) = held else { return Ok(()) };
    let (held, feedback) = held?;
    let feedback = tokio::spawn(feedback.run(gateway.status.clone()));
    let mut feedback = AbortOnDropHandle::new(feedback);
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ended = &mut feedback => return Err(feedback_error(ended)),
        opened = open::open(gateway, held, past, now_seconds()) => opened,
    };
    let (epoch, mut session) = opened?;
    let _ = active.send(Some(epoch));
    gateway.status.set_streaming(true);
    tracing::info!(%epoch, slot = gateway.config.postgres.slot, "streaming");
    let sequence = session.acknowledged_sequence();
    let stopped = stop.clone();
    // The session is a task of its own. The runtime's main future would be woken across threads at
    // every frame.
    let running = tokio::spawn(async move { session.run(stopped).await });
    let mut running = AbortOnDropHandle::new(running);
    let ended = tokio::select! {
        ended = &mut running => {
            ended.unwrap_or_else(|error| Err(SessionError::Task(error.to_string())))
        }
        ended = &mut feedback => {
            // The session must not publish any more when the next one reads the stream's end.
            running.abort();
            let _ = (&mut running).await;
            Err(feedback_error(ended))
        }
        () = drain_deadline(stop) => {
            tracing::warn!(
                "messages in flight not acknowledged in time; the next start sends them again"
            );
            Ok(())
        }
    };
    past.acknowledged.store(sequence(), Relaxed);
    if ended.is_ok() {
        // The feedback task, which `feedback` keeps alive, still confirms what the last
        // acknowledgements made durable.
        tokio::time::sleep(LAST_STATUS).await;
    }
    ended
}

/// The error that ended the feedback loop.
fn feedback_error(ended: Result<PostgresError, JoinError>) -> SessionError {
    ended.map_or_else(|error| SessionError::Task(error.to_string()), SessionError::from)
}

/// Completes when a session that was asked to stop must not wait for a server any longer.
async fn drain_deadline(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(session::DRAIN + LAST_STATUS).await;
}
