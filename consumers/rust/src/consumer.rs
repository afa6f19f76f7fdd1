//! The way in: what to replicate, from where, into what. How it is done is in `engine`.

use std::time::Duration;

use tokio::sync::watch;
use walgate_nats_connect::Backoff;
use walgate_wire::{Caps, TableName, Token};

use crate::{
    Error, NatsOptions, Sink, Status, StreamNames,
    engine::{Engine, Limits},
    remote::Remote,
};

/// Between attempts to open a sink that is away.
const SINK_RETRY_FIRST: Duration = Duration::from_millis(200);
const SINK_RETRY_MAX: Duration = Duration::from_secs(10);

/// Settings that rarely need changing.
#[derive(Clone, Debug)]
pub struct Options {
    pub streams: StreamNames,
    /// What is accepted from outside.
    pub caps: Caps,
    /// While more is waiting, transactions of the source are gathered into one local commit for so long.
    /// Default 50 ms. With nothing waiting each is committed at once.
    pub commit_delay_max: Duration,
    /// … or until they take this many bytes decompressed. Default 8 MiB. A single transaction of the source
    /// is committed as one, however large.
    pub commit_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            streams: StreamNames::default(),
            caps: Caps::default(),
            commit_delay_max: Duration::from_millis(50),
            commit_bytes_max: 8 << 20,
        }
    }
}

#[derive(Debug)]
enum Nats {
    Options(Box<NatsOptions>),
    Client(async_nats::Client),
}

/// See [`Consumer::builder`].
#[derive(Debug)]
pub struct ConsumerBuilder<S> {
    nats: Option<Nats>,
    tables: Vec<String>,
    tokens: Vec<Token>,
    options: Options,
    sink: S,
}

impl<S> ConsumerBuilder<S> {
    /// `nats://host:4222`, several separated by commas, with user and password if need be; or [`NatsOptions`], with TLS and
    /// credentials.
    pub fn nats(mut self, options: impl Into<NatsOptions>) -> Self {
        self.nats = Some(Nats::Options(Box::new(options.into())));
        self
    }

    /// A connection made elsewhere.
    pub fn client(mut self, client: async_nats::Client) -> Self {
        self.nats = Some(Nats::Client(client));
        self
    }

    /// A table as one writes it: `orders`, `public.users`, `"odd.schema".t`. May be called several times.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.tables.push(name.into());
        self
    }

    /// A table by its token, for those that the gateway gives an alias.
    pub fn token(mut self, token: Token) -> Self {
        self.tokens.push(token);
        self
    }

    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Where the rows go.
    pub fn sink<T: Sink>(self, sink: T) -> ConsumerBuilder<T> {
        let ConsumerBuilder { nats, tables, tokens, options, .. } = self;
        ConsumerBuilder { nats, tables, tokens, options, sink }
    }
}

impl<S: Sink> ConsumerBuilder<S> {
    /// Checks the settings and connects. The server may be away: it is waited for. If it refuses us that is an error.
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
            Some(Nats::Client(client)) => client,
            Some(Nats::Options(options)) => connect(*options).await?,
            None => return Err(Error::Configuration("say where NATS is: nats(url)".to_owned())),
        };
        let (status, _) = watch::channel(Status::default());
        Ok(Consumer { client, tokens, options: self.options, sink: self.sink, status })
    }
}

/// A connection that is kept up for as long as it is used. A server that is away is waited for; one that refuses us
/// is not.
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

/// Keeps local copies of tables.
#[derive(Debug)]
pub struct Consumer<S = ()> {
    client: async_nats::Client,
    tokens: Vec<Token>,
    options: Options,
    sink: S,
    status: watch::Sender<Status>,
}

impl Consumer {
    pub fn builder() -> ConsumerBuilder<()> {
        let (tables, tokens) = (vec![], vec![]);
        ConsumerBuilder { nats: None, tables, tokens, options: Options::default(), sink: () }
    }
}

impl<S: Sink> Consumer<S> {
    /// What it is doing, for a display.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Loads what is missing, then applies changes, until `shutdown` is done or something fails that
    /// waiting does not mend: the sink, or a message that cannot be read. What was committed stays. A sink that is away
    /// ([`SinkError::passing`]) is opened again.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Consumer { client, tokens, options, mut sink, status } = self;
        let limits = Limits {
            caps: options.caps,
            commit_delay_max: options.commit_delay_max,
            commit_bytes_max: options.commit_bytes_max,
        };
        let remote = Remote::new(client, options.streams);
        let mut shutdown = std::pin::pin!(shutdown);
        let mut backoff = Backoff::new(SINK_RETRY_FIRST, SINK_RETRY_MAX);
        loop {
            let session =
                session(remote.clone(), &mut sink, &tokens, limits, status.clone(), &mut shutdown);
            let (away, has_moved) = match Box::pin(session).await {
                Ended::Failed { error: Error::Sink(error), has_moved } if error.passes() => {
                    (error, has_moved)
                }
                Ended::Failed { error, .. } => return Err(error),
                Ended::Stopped(closed) => return closed,
            };
            if has_moved {
                backoff.reset();
            }
            let wait = backoff.next_delay();
            tracing::warn!(error = %away, retry_in_ms = wait.as_millis() as u64, "opening the copy again");
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// How a session ended.
enum Ended {
    /// As asked. A sink that is away then has nothing to give up.
    Stopped(Result<(), Error>),
    /// `has_moved`: something was committed before.
    Failed { error: Error, has_moved: bool },
}

/// As long as the sink can be written.
async fn session<S: Sink>(
    remote: Remote,
    sink: &mut S,
    tokens: &[Token],
    limits: Limits,
    status: watch::Sender<Status>,
    shutdown: &mut (impl Future<Output = ()> + Unpin),
) -> Ended {
    let opening = Engine::open(remote, sink, tokens, limits, status);
    let opened = tokio::select! {
        biased;
        () = &mut *shutdown => return Ended::Stopped(Ok(())),
        opened = Box::pin(opening) => opened,
    };
    let mut engine = match opened {
        Ok(engine) => Box::new(engine),
        Err(error) => return Ended::Failed { error, has_moved: false },
    };
    let before = engine.commits();
    let ended = tokio::select! {
        biased;
        () = shutdown => None,
        ended = engine.run() => Some(ended),
    };
    let closed = engine.close().await;
    match ended {
        Some(Err(error)) => Ended::Failed { error, has_moved: engine.commits() > before },
        Some(Ok(())) | None => Ended::Stopped(match closed {
            Err(Error::Sink(error)) if error.passes() => Ok(()),
            closed => closed,
        }),
    }
}
