//! The entry point: which tables to replicate, from which server, into which sink. The work itself
//! is in `engine`.

use std::time::Duration;

use tokio::sync::watch;
use walgate_nats_connect::Backoff;
use walgate_wire::{Caps, TableName, Token};

use crate::{
    ConsumerStatus, Error, NatsOptions, Sink, StreamNames,
    engine::{Engine, EngineLimits},
    remote::RemoteStreams,
};

/// Delays between attempts to open a sink after a transient error.
const SINK_RETRY_FIRST: Duration = Duration::from_millis(200);
const SINK_RETRY_MAX: Duration = Duration::from_secs(10);

/// Settings that rarely need changing.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Names of the streams.
    pub streams: StreamNames,
    /// Limits for the sizes in received bodies.
    pub caps: Caps,
    /// How long source transactions are combined into one local commit while more messages wait.
    /// Default 50 ms. If no message waits, the consumer commits at once.
    pub commit_delay_max: Duration,
    /// Bytes, decompressed, after which a local commit is made earlier. Default 8 MiB. A single
    /// source transaction is always one commit, however large.
    pub commit_bytes_max: usize,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        ConsumerOptions {
            streams: StreamNames::default(),
            caps: Caps::default(),
            commit_delay_max: Duration::from_millis(50),
            commit_bytes_max: 8 << 20,
        }
    }
}

#[derive(Debug)]
enum NatsConnection {
    Options(Box<NatsOptions>),
    Client(async_nats::Client),
}

/// Settings of a [`Consumer`]. See [`Consumer::builder`].
#[derive(Debug)]
pub struct ConsumerBuilder<S> {
    nats: Option<NatsConnection>,
    tables: Vec<String>,
    tokens: Vec<Token>,
    options: ConsumerOptions,
    sink: S,
}

impl<S> ConsumerBuilder<S> {
    /// Where NATS is: a URL such as `nats://host:4222`, or [`NatsOptions`] with TLS and
    /// credentials.
    pub fn nats(mut self, options: impl Into<NatsOptions>) -> Self {
        self.nats = Some(NatsConnection::Options(Box::new(options.into())));
        self
    }

    /// Uses an existing connection instead of [`nats`](Self::nats).
    pub fn client(mut self, client: async_nats::Client) -> Self {
        self.nats = Some(NatsConnection::Client(client));
        self
    }

    /// Adds a table by its SQL name: `orders`, `public.users`, `"odd.schema".t`.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.tables.push(name.into());
        self
    }

    /// Adds a table by its token, for a table with an alias in the gateway's configuration.
    pub fn token(mut self, token: Token) -> Self {
        self.tokens.push(token);
        self
    }

    /// Replaces the default options.
    pub fn options(mut self, options: ConsumerOptions) -> Self {
        self.options = options;
        self
    }

    /// The sink that stores the rows.
    pub fn sink<T: Sink>(self, sink: T) -> ConsumerBuilder<T> {
        let ConsumerBuilder { nats, tables, tokens, options, .. } = self;
        ConsumerBuilder { nats, tables, tokens, options, sink }
    }
}

impl<S: Sink> ConsumerBuilder<S> {
    /// Validates the settings and connects. An unreachable server is no error: the connection is
    /// made in the background.
    ///
    /// # Errors
    /// [`Error::Configuration`] for settings that cannot work; [`Error::Connect`] if NATS refuses
    /// the connection.
    pub async fn build(self) -> Result<Consumer<S>, Error> {
        let mut tokens = self.tokens;
        for name in self.tables {
            let name: TableName = name.parse().map_err(|e| Error::Configuration(format!("{e}")))?;
            tokens.push(name.token());
        }
        tokens.sort();
        tokens.dedup();
        if tokens.is_empty() {
            return Err(Error::Configuration("name at least one table".to_owned()));
        }
        let client = match self.nats {
            Some(NatsConnection::Client(client)) => client,
            Some(NatsConnection::Options(options)) => connect(*options).await?,
            None => {
                return Err(Error::Configuration(
                    "no NATS server is set: call nats(url)".to_owned(),
                ));
            }
        };
        let (status, _) = watch::channel(ConsumerStatus::default());
        Ok(Consumer { client, tokens, options: self.options, sink: self.sink, status })
    }
}

/// Connects to NATS. The client reconnects by itself, without limit. An unreachable server is no
/// error: the connection is made in the background.
///
/// # Errors
/// [`Error::Connect`] for settings that cannot work, or if NATS refuses the connection.
pub async fn connect(options: impl Into<NatsOptions>) -> Result<async_nats::Client, Error> {
    let connector = options.into().build_connector()?;
    let connector =
        connector.with_options(|options| options.name("walgate-consumer").max_reconnects(None));
    match connector.connect().await {
        Err(error) if error.is_transient() => {
            tracing::warn!(%error, "NATS server unreachable, connecting in the background");
            Ok(connector.connect_in_background().await?)
        }
        connected => Ok(connected?),
    }
}

/// Keeps copies of tables up to date in a sink.
#[derive(Debug)]
pub struct Consumer<S = ()> {
    client: async_nats::Client,
    tokens: Vec<Token>,
    options: ConsumerOptions,
    sink: S,
    status: watch::Sender<ConsumerStatus>,
}

impl Consumer {
    /// Starts with no server, no table and no sink; all three must be set.
    pub fn builder() -> ConsumerBuilder<()> {
        let tables = vec![];
        let tokens = vec![];
        ConsumerBuilder {
            nats: None,
            tables,
            tokens,
            options: ConsumerOptions::default(),
            sink: (),
        }
    }
}

impl<S: Sink> Consumer<S> {
    /// The consumer's status, updated at each commit and each chunk.
    pub fn status(&self) -> watch::Receiver<ConsumerStatus> {
        self.status.subscribe()
    }

    /// Loads missing copies, then applies changes, until `shutdown` completes. Committed rows stay.
    /// After a transient error of the sink ([`SinkError::transient`]) the sink is opened again.
    ///
    /// # Errors
    /// A permanent error: [`Error::Sink`], or [`Error::Protocol`] for a message that cannot be
    /// read.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Consumer { client, tokens, options, mut sink, status } = self;
        let limits = EngineLimits {
            caps: options.caps,
            commit_delay_max: options.commit_delay_max,
            commit_bytes_max: options.commit_bytes_max,
        };
        let remote = RemoteStreams::new(client, options.streams);
        let mut shutdown = std::pin::pin!(shutdown);
        let mut backoff = Backoff::new(SINK_RETRY_FIRST, SINK_RETRY_MAX);
        loop {
            let session = run_session(
                remote.clone(),
                &mut sink,
                &tokens,
                limits,
                status.clone(),
                &mut shutdown,
            );
            let (unavailable, has_committed) = match Box::pin(session).await {
                SessionEnd::Failed { error: Error::Sink(error), has_committed }
                    if error.is_transient() =>
                {
                    (error, has_committed)
                }
                SessionEnd::Failed { error, .. } => return Err(error),
                SessionEnd::Stopped(closed) => return closed,
            };
            if has_committed {
                backoff.reset();
            }
            let delay = backoff.next_delay();
            tracing::warn!(error = %unavailable, retry_in_ms = delay.as_millis() as u64, "sink unavailable, reopening");
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
}

/// How a session ended.
enum SessionEnd {
    /// At shutdown. A transient error while closing the sink does not matter then.
    Stopped(Result<(), Error>),
    /// `has_committed`: the session had committed before it failed.
    Failed { error: Error, has_committed: bool },
}

/// Runs until shutdown or an error.
async fn run_session<S: Sink>(
    remote: RemoteStreams,
    sink: &mut S,
    tokens: &[Token],
    limits: EngineLimits,
    status: watch::Sender<ConsumerStatus>,
    shutdown: &mut (impl Future<Output = ()> + Unpin),
) -> SessionEnd {
    let opening = Engine::open(remote, sink, tokens, limits, status);
    let opened = tokio::select! {
        biased;
        () = &mut *shutdown => return SessionEnd::Stopped(Ok(())),
        opened = Box::pin(opening) => opened,
    };
    let mut engine = match opened {
        Ok(engine) => Box::new(engine),
        Err(error) => return SessionEnd::Failed { error, has_committed: false },
    };
    let before = engine.commit_count();
    let ended = tokio::select! {
        biased;
        () = shutdown => None,
        ended = engine.run() => Some(ended),
    };
    let closed = engine.close().await;
    match ended {
        Some(Err(error)) => {
            SessionEnd::Failed { error, has_committed: engine.commit_count() > before }
        }
        Some(Ok(())) | None => SessionEnd::Stopped(match closed {
            Err(Error::Sink(error)) if error.is_transient() => Ok(()),
            closed => closed,
        }),
    }
}
