//! Applies changes to a Postgres table. For a table with a key, only the last state of each row is
//! sent, many rows per statement. Statements are pipelined: sent before earlier results arrive.

use std::{collections::HashMap, pin::Pin, task::Poll};

use tokio_postgres::{Client, Statement, types::ToSql};
use walgate_wire::{Op, Value};

use super::{
    error::postgres_error, session::TargetSession, statements::PostgresStatements,
    text::postgres_text,
};
use crate::{ChangeBatch, SinkError};

mod partial;

/// Statements whose results may be outstanding.
const PIPELINE_STATEMENTS: usize = 128;
/// Rows, and bytes of their text, that are collected for one statement.
const PENDING_ROWS_MAX: usize = 1000;
const PENDING_BYTES_MAX: usize = 1 << 20;

type Parameters = Vec<Option<String>>;
type RunningStatement<'a> =
    Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'a>>;

/// The last state of a row with a key.
enum PendingRow {
    Upsert(Parameters),
    Delete,
}

impl TargetSession {
    pub async fn apply_changes(&mut self, changes: &ChangeBatch) -> Result<(), SinkError> {
        self.begin_transaction().await?;
        let token = &changes.local.token;
        if !self.statements.get(token).is_some_and(|statements| statements.matches(changes)) {
            let statements =
                PostgresStatements::new(&self.client, &changes.schema, &changes.local).await?;
            self.statements.insert(token.clone(), statements);
        }
        let Some(statements) = self.statements.get_mut(token) else { return Ok(()) };
        let what = format!("changes of {}", changes.schema.table);
        let decoded = changes.decode().map_err(|e| SinkError::new(&what, e))?;
        let mut applier = PostgresApplier {
            client: &self.client,
            statements,
            what,
            running: Vec::new(),
            pending_by_key: HashMap::new(),
            pending_inserts: Vec::new(),
            pending_bytes: 0,
        };
        for change in &decoded {
            applier.apply_op(&change.op).await?;
        }
        applier.flush_pending().await?;
        applier.await_results().await
    }
}

struct PostgresApplier<'a> {
    client: &'a Client,
    statements: &'a mut PostgresStatements,
    what: String,
    running: Vec<RunningStatement<'a>>,
    /// Rows to send, by key.
    pending_by_key: HashMap<Parameters, PendingRow>,
    /// Rows to send, of a table without a key.
    pending_inserts: Vec<Parameters>,
    pending_bytes: usize,
}

impl PostgresApplier<'_> {
    async fn apply_op(&mut self, op: &Op<'_>) -> Result<(), SinkError> {
        match op {
            Op::Insert { row } => self.upsert_row(row).await,
            Op::Update { row, unchanged, old } => {
                self.update_row(row, unchanged, old.as_deref()).await
            }
            Op::Delete { old } => {
                let key = self.old_parameters(old)?;
                if self.statements.key.is_empty() {
                    self.flush_pending().await?;
                    return self.send_statement(&self.statements.delete.clone(), key).await;
                }
                self.pending_by_key.insert(key, PendingRow::Delete);
                self.flush_if_full(0).await
            }
            // Not TRUNCATE: transactions that began before would see an empty table.
            Op::Truncate => self.delete_all_rows().await,
        }
    }

    async fn upsert_row(&mut self, row: &[Value<'_>]) -> Result<(), SinkError> {
        let targets = self.statements.targets.iter();
        let parameters: Parameters =
            targets.map(|t| postgres_text(t.form, &t.kind, &row[t.index])).collect();
        let bytes = parameters.iter().flatten().map(String::len).sum();
        if self.statements.key.is_empty() {
            self.pending_inserts.push(parameters);
        } else {
            let key = self.new_key(row, &[], None)?;
            self.pending_by_key.insert(key, PendingRow::Upsert(parameters));
        }
        self.flush_if_full(bytes).await
    }

    async fn update_row(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<(), SinkError> {
        let statements = &*self.statements;
        let index = |at: usize| statements.targets[at].index;
        let same = |old: &[Value<'_>], place: Option<usize>, at: usize| {
            unchanged.contains(&index(at))
                || place.and_then(|place| old.get(place)) == row.get(index(at))
        };
        let keeps_key = match old {
            None if statements.key.is_empty() => {
                return Err(
                    self.invalid_change("an update of a table without a key has no old row")
                );
            }
            None => true,
            Some(old) => {
                !statements.key.is_empty()
                    && statements.old.iter().all(|&(place, at)| same(old, place, at))
            }
        };
        if keeps_key && unchanged.is_empty() {
            return self.upsert_row(row).await;
        }
        if keeps_key || !self.move_row(row, unchanged, old.unwrap_or_default()).await? {
            return self.merge_row(row, unchanged, old).await;
        }
        Ok(())
    }

    fn old_parameters(&self, old: &[Value<'_>]) -> Result<Parameters, SinkError> {
        let parameter = |&(place, at): &(Option<usize>, usize)| {
            let value = place.and_then(|place| old.get(place));
            let value = value.ok_or_else(|| {
                self.invalid_change("an old row lacks the columns that identify the row")
            })?;
            let target = &self.statements.targets[at];
            Ok(postgres_text(target.form, &target.kind, value))
        };
        self.statements.old.iter().map(parameter).collect()
    }

    fn invalid_change(&self, reason: &str) -> SinkError {
        SinkError::new(&self.what, reason)
    }

    async fn delete_all_rows(&mut self) -> Result<(), SinkError> {
        self.pending_by_key.clear();
        self.pending_inserts.clear();
        self.await_results().await?;
        let deleted =
            self.client.execute(&format!("DELETE FROM {}", self.statements.table), &[]).await;
        deleted.map(drop).map_err(postgres_error(&self.what))
    }

    async fn flush_if_full(&mut self, bytes: usize) -> Result<(), SinkError> {
        self.pending_bytes += bytes;
        let rows = self.pending_by_key.len() + self.pending_inserts.len();
        if rows >= PENDING_ROWS_MAX || self.pending_bytes >= PENDING_BYTES_MAX {
            self.flush_pending().await
        } else {
            Ok(())
        }
    }

    /// Sends the pending rows. Deletes go first, because a deleted row may conflict with an
    /// inserted one.
    async fn flush_pending(&mut self) -> Result<(), SinkError> {
        self.pending_bytes = 0;
        let mut rows = std::mem::take(&mut self.pending_inserts);
        let mut deleted = Vec::new();
        for (key, last) in self.pending_by_key.drain() {
            match last {
                PendingRow::Upsert(row) => rows.push(row),
                PendingRow::Delete => deleted.push(key),
            }
        }
        if !deleted.is_empty() {
            let arrays = transpose(deleted, self.statements.old.len());
            self.send_statement(&self.statements.delete.clone(), arrays).await?;
        }
        if self.statements.targets.is_empty() {
            for _ in rows {
                self.send_statement(&self.statements.upsert.clone(), Parameters::new()).await?;
            }
        } else if !rows.is_empty() {
            let arrays = transpose(rows, self.statements.targets.len());
            self.send_statement(&self.statements.upsert.clone(), arrays).await?;
        }
        Ok(())
    }

    /// Sends a statement without waiting for its result. The server executes statements in order.
    async fn send_statement<P: ToSql + Sync + Send + 'static>(
        &mut self,
        statement: &Statement,
        parameters: Vec<P>,
    ) -> Result<(), SinkError> {
        let client = self.client;
        let statement = statement.clone();
        let mut running: RunningStatement<'_> =
            Box::pin(async move { client.execute_raw(&statement, parameters).await });
        // The first poll sends it.
        match futures::poll!(&mut running) {
            Poll::Ready(done) => drop(done.map_err(postgres_error(&self.what))?),
            Poll::Pending => self.running.push(running),
        }
        if self.running.len() >= PIPELINE_STATEMENTS { self.await_results().await } else { Ok(()) }
    }

    async fn await_results(&mut self) -> Result<(), SinkError> {
        for running in self.running.drain(..) {
            running.await.map_err(postgres_error(&self.what))?;
        }
        Ok(())
    }
}

/// From rows to one array per column.
fn transpose(rows: Vec<Parameters>, columns: usize) -> Vec<Parameters> {
    let mut arrays: Vec<Parameters> =
        (0..columns).map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        for (array, value) in arrays.iter_mut().zip(row) {
            array.push(value);
        }
    }
    arrays
}
