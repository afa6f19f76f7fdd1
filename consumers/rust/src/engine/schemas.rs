//! The tables' entries in KV, from the first kept revision on: states, reseeds, epochs.

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use walgate_wire::{EpochRecord, Schema, TableState, Token, buckets::SCHEMAS_PREFIX, from_msgpack};

use super::{Engine, changes::reseed_reason};
use crate::{
    Error, Sink,
    assets::read_schema,
    decode::protocol_error,
    feed::{Delivery, Feed},
    remote::RemoteStreams,
    state::Tables,
};

const REMIND_EVERY: Duration = Duration::from_secs(10);

/// Follows the bucket of schemas. Reads all kept revisions, not only the last: a reseed that
/// happened while this consumer was stopped may be followed by other revisions.
#[derive(Debug)]
pub(super) struct SchemaFeed {
    feed: Feed,
    caught_up: bool,
    /// Schemas read so far. They are judged after the feed has caught up, because reseeds depend on
    /// the epoch.
    history: Vec<Schema>,
    remind_at: Instant,
}

impl SchemaFeed {
    pub fn open(remote: &RemoteStreams, tokens: &[Token]) -> SchemaFeed {
        let keys = tokens.iter().map(Token::as_str).chain([EpochRecord::KEY]);
        let subjects = keys.map(|key| format!("{SCHEMAS_PREFIX}{key}")).collect();
        let feed = Feed::open(remote.schemas_source(subjects), 1);
        let remind_at = Instant::now() + Duration::from_secs(2);
        SchemaFeed { feed, caught_up: false, history: vec![], remind_at }
    }

    /// Whether all revisions that were stored when the feed was opened have been read.
    pub fn caught_up(&self) -> bool {
        self.caught_up
    }

    pub async fn next(&mut self) -> Delivery {
        self.feed.next().await
    }

    pub fn warn_about_missing_schemas(&mut self, tables: &Tables) {
        if Instant::now() < self.remind_at {
            return;
        }
        self.remind_at = Instant::now() + REMIND_EVERY;
        for table in tables.tokens().filter(|token| tables.latest_schema(token).is_none()) {
            tracing::warn!(
                %table,
                "no gateway has published this table's schema yet; is the gateway running, and is the \
                 table in its configuration?"
            );
        }
    }
}

impl<S: Sink> Engine<'_, S> {
    pub(super) async fn on_schema(&mut self, delivery: &Delivery) -> Result<(), Error> {
        if delivery.rewound {
            self.assets.clear();
        }
        let key = delivery.subject.strip_prefix(SCHEMAS_PREFIX).unwrap_or_default();
        if key == EpochRecord::KEY {
            self.on_epoch(delivery)?;
        } else if let Ok(token) = Token::parse(key) {
            match read_schema(&delivery.payload, &token, delivery.seq) {
                Ok(schema) => self.schemas.history.push(schema),
                // An empty value is a deleted key. The gateway never deletes keys; an operator can.
                Err(error) => {
                    tracing::warn!(key, %error, "schema unreadable, keeping the previous one")
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
        // The gateway never deletes the entry; an operator can. That begins no epoch.
        if delivery.payload.is_empty() {
            let key = EpochRecord::KEY;
            tracing::warn!(
                key,
                "entry deleted from the bucket of schemas, keeping the previous one"
            );
            return Ok(());
        }
        let record: EpochRecord =
            from_msgpack(&delivery.payload).map_err(|e| protocol_error(delivery)(e.into()))?;
        if self.epoch != Some(record.epoch) {
            tracing::debug!(epoch = %record.epoch, "epoch began");
            self.epoch = Some(record.epoch);
            self.tables.begin_epoch(delivery.seq);
        }
        Ok(())
    }

    async fn judge_schemas(&mut self) -> Result<(), Error> {
        let mut reload = match self.epoch {
            Some(epoch) => self.tables.outdated_tables(epoch),
            None => vec![],
        };
        for schema in std::mem::take(&mut self.schemas.history) {
            self.assets.insert_schema(Arc::new(schema.clone()));
            self.status.set_schema(&schema);
            let token = schema.token.clone();
            let reason = reseed_reason(&schema);
            if self.tables.on_schema(schema) {
                reload.push((token, reason));
            }
        }
        self.log_state_changes();
        if reload.is_empty() { Ok(()) } else { self.reload_tables(reload).await }
    }

    /// Logs the states of tables that changed.
    fn log_state_changes(&mut self) {
        let mut live = Vec::new();
        for schema in self.tables.take_state_changes() {
            let table = schema.table.as_str();
            let reason = schema.reason.as_deref().unwrap_or_default();
            if matches!(schema.state, TableState::Live | TableState::Reseed) {
                live.push(schema.token.clone());
            }
            match schema.state {
                TableState::Live => tracing::info!(table, "table is live"),
                TableState::Suspended => {
                    tracing::warn!(table, reason, "table suspended: its rows stay as they are")
                }
                TableState::Dropped => {
                    tracing::warn!(table, reason, "table dropped at the source: its rows stay")
                }
                TableState::Reseed => {
                    tracing::info!(
                        table,
                        reason,
                        "table reseeded: copies from before {} are void",
                        schema.lsn
                    )
                }
            }
        }
        for token in live {
            self.retry_now(&token);
        }
        self.status.publish();
    }
}
