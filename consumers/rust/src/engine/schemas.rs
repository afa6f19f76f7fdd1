//! The tables' entries in KV, from the first revision that is kept to what comes: states, reseeds, epochs.

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use walgate_wire::{EpochRecord, Schema, TableState, Token, buckets::SCHEMAS_PREFIX, from_msgpack};

use super::{Engine, changes::reseed_reason};
use crate::{
    Error, Sink,
    assets::read_schema,
    decode::unreadable,
    feed::{Delivery, Feed},
    remote::Remote,
    state::Tables,
};

const REMIND_EVERY: Duration = Duration::from_secs(10);

/// Follows the bucket. All kept revisions are read, not only the last: a reseed that happened while this
/// consumer was away may have been followed by others.
#[derive(Debug)]
pub(super) struct Schemas {
    feed: Feed,
    caught_up: bool,
    /// Read before it had caught up: epochs must be known before reseeds are judged.
    history: Vec<Schema>,
    remind_at: Instant,
}

impl Schemas {
    pub fn open(remote: &Remote, tokens: &[Token]) -> Schemas {
        let keys = tokens.iter().map(Token::as_str).chain([EpochRecord::KEY]);
        let subjects = keys.map(|key| format!("{SCHEMAS_PREFIX}{key}")).collect();
        let feed = Feed::open(remote.schemas(subjects), 1);
        let remind_at = Instant::now() + Duration::from_secs(2);
        Schemas { feed, caught_up: false, history: vec![], remind_at }
    }

    /// Whether what was there at the beginning was read.
    pub fn caught_up(&self) -> bool {
        self.caught_up
    }

    pub async fn next(&mut self) -> Delivery {
        self.feed.next().await
    }

    pub fn say_what_is_missing(&mut self, tables: &Tables) {
        if Instant::now() < self.remind_at {
            return;
        }
        self.remind_at = Instant::now() + REMIND_EVERY;
        for table in tables.tokens().filter(|token| tables.latest(token).is_none()) {
            tracing::warn!(
                %table,
                "waiting: no gateway has published the schema of this table yet; is it running and is the table in its configuration?"
            );
        }
    }
}

impl<S: Sink> Engine<'_, S> {
    pub(super) async fn on_schema(&mut self, delivery: &Delivery) -> Result<(), Error> {
        if delivery.rewound {
            self.assets.forget();
        }
        let key = delivery.subject.strip_prefix(SCHEMAS_PREFIX).unwrap_or_default();
        if key == EpochRecord::KEY {
            self.on_epoch(delivery)?;
        } else if let Ok(token) = Token::parse(key) {
            match read_schema(&delivery.payload, &token, delivery.seq) {
                Ok(schema) => self.schemas.history.push(schema),
                // An empty value is a deleted key; the gateway never does that, an operator may.
                Err(error) => {
                    tracing::warn!(key, %error, "cannot read the schema, keeping the one before")
                }
            }
        }
        if delivery.pending > 0 && !self.schemas.caught_up {
            return Ok(());
        }
        self.schemas.caught_up = true;
        self.judge_schemas().await
    }

    fn on_epoch(&mut self, delivery: &Delivery) -> Result<(), Error> {
        // Somebody deleted the entry; the gateway never does. It begins no epoch, so the one that is known goes on.
        if delivery.payload.is_empty() {
            let key = EpochRecord::KEY;
            tracing::warn!(
                key,
                "the entry was deleted from the bucket of schemas, keeping the one before"
            );
            return Ok(());
        }
        let record: EpochRecord =
            from_msgpack(&delivery.payload).map_err(|e| unreadable(delivery)(e.into()))?;
        if self.epoch != Some(record.epoch) {
            tracing::debug!(epoch = %record.epoch, "epoch");
            self.epoch = Some(record.epoch);
            self.tables.epoch_begins(delivery.seq);
        }
        Ok(())
    }

    async fn judge_schemas(&mut self) -> Result<(), Error> {
        let mut reload = match self.epoch {
            Some(epoch) => self.tables.outdated(epoch),
            None => vec![],
        };
        for schema in std::mem::take(&mut self.schemas.history) {
            self.assets.remember(Arc::new(schema.clone()));
            self.board.schema(&schema);
            let (token, reason) = (schema.token.clone(), reseed_reason(&schema));
            if self.tables.on_schema(schema) {
                reload.push((token, reason));
            }
        }
        self.announce();
        if reload.is_empty() { Ok(()) } else { self.reload(reload).await }
    }

    /// Says what changed in the state of tables.
    fn announce(&mut self) {
        let mut flowing = Vec::new();
        for schema in self.tables.news() {
            let (table, reason) =
                (schema.table.as_str(), schema.reason.as_deref().unwrap_or_default());
            if matches!(schema.state, TableState::Live | TableState::Reseed) {
                flowing.push(schema.token.clone());
            }
            match schema.state {
                TableState::Live => tracing::info!(table, "flows"),
                TableState::Suspended => {
                    tracing::warn!(table, reason, "suspended: the rows stay as they are")
                }
                TableState::Dropped => {
                    tracing::warn!(table, reason, "dropped at the source: the rows stay")
                }
                TableState::Reseed => {
                    tracing::info!(table, reason, "copies from before {} are void", schema.lsn)
                }
            }
        }
        for token in flowing {
            self.try_now(&token);
        }
        self.board.publish();
    }
}
