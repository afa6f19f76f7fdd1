//! What each change does to a table. Of rows that are found by key only the last state of each is sent, many at
//! a time, and statements are sent ahead of their results.

use std::{collections::HashMap, pin::Pin, task::Poll};

use tokio_postgres::{Client, Statement, types::ToSql};
use walgate_wire::{Op, Value};

use super::{failed, plan::Plan, session::Session, text::postgres_text};
use crate::{Changes, SinkError};

mod partial;

/// Statements that are under way at a time.
const PIPELINE: usize = 128;
/// Rows, and bytes of their text, that are gathered for one statement.
const GATHERED_ROWS: usize = 1000;
const GATHERED_BYTES: usize = 1 << 20;

type Parameters = Vec<Option<String>>;
type Executing<'a> = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'a>>;

/// What has become of a row, by its key.
enum Last {
    Row(Parameters),
    Gone,
}

impl Session {
    pub async fn apply(&mut self, changes: &Changes) -> Result<(), SinkError> {
        self.begin().await?;
        let token = &changes.local.token;
        if !self.plans.get(token).is_some_and(|plan| plan.fits(changes)) {
            let plan = Plan::new(&self.client, &changes.schema, &changes.local).await?;
            self.plans.insert(token.clone(), plan);
        }
        let Some(plan) = self.plans.get_mut(token) else { return Ok(()) };
        let what = format!("changes of {}", changes.schema.table);
        let decoded = changes.decode().map_err(|e| SinkError::new(&what, e))?;
        let mut applier = Applier {
            client: &self.client,
            plan,
            what,
            executing: Vec::new(),
            by_key: HashMap::new(),
            appended: Vec::new(),
            gathered_bytes: 0,
        };
        for change in &decoded {
            applier.apply(&change.op).await?;
        }
        applier.flush().await?;
        applier.settle().await
    }
}

struct Applier<'a> {
    client: &'a Client,
    plan: &'a mut Plan,
    what: String,
    executing: Vec<Executing<'a>>,
    /// Not sent yet.
    by_key: HashMap<Parameters, Last>,
    /// Not sent yet, of a table without a key.
    appended: Vec<Parameters>,
    gathered_bytes: usize,
}

impl Applier<'_> {
    async fn apply(&mut self, op: &Op<'_>) -> Result<(), SinkError> {
        match op {
            Op::Insert { row } => self.upsert(row).await,
            Op::Update { row, unchanged, old } => self.update(row, unchanged, old.as_deref()).await,
            Op::Delete { old } => {
                let key = self.old_parameters(old)?;
                if self.plan.key.is_empty() {
                    self.flush().await?;
                    return self.send(&self.plan.delete.clone(), key).await;
                }
                self.by_key.insert(key, Last::Gone);
                self.flush_if_full(0).await
            }
            // Not TRUNCATE: that shows an empty table to transactions that began before.
            Op::Truncate => self.truncate().await,
        }
    }

    async fn upsert(&mut self, row: &[Value<'_>]) -> Result<(), SinkError> {
        let targets = self.plan.targets.iter();
        let parameters: Parameters =
            targets.map(|t| postgres_text(t.form, &t.kind, &row[t.index])).collect();
        let bytes = parameters.iter().flatten().map(String::len).sum();
        if self.plan.key.is_empty() {
            self.appended.push(parameters);
        } else {
            let key = self.new_key(row, &[], None)?;
            self.by_key.insert(key, Last::Row(parameters));
        }
        self.flush_if_full(bytes).await
    }

    async fn update(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<(), SinkError> {
        let plan = &*self.plan;
        let index = |at: usize| plan.targets[at].index;
        let same = |old: &[Value<'_>], place: Option<usize>, at: usize| {
            unchanged.contains(&index(at))
                || place.and_then(|place| old.get(place)) == row.get(index(at))
        };
        let stays = match old {
            None if plan.key.is_empty() => {
                return Err(self.wrong("an update of a table without a key carries no old row"));
            }
            None => true,
            Some(old) => {
                !plan.key.is_empty() && plan.old.iter().all(|&(place, at)| same(old, place, at))
            }
        };
        if stays && unchanged.is_empty() {
            return self.upsert(row).await;
        }
        if stays || !self.moved(row, unchanged, old.unwrap_or_default()).await? {
            return self.merge(row, unchanged, old).await;
        }
        Ok(())
    }

    fn old_parameters(&self, old: &[Value<'_>]) -> Result<Parameters, SinkError> {
        let parameter = |&(place, at): &(Option<usize>, usize)| {
            let value = place.and_then(|place| old.get(place));
            let value =
                value.ok_or_else(|| self.wrong("an old row does not carry what finds the row"))?;
            let target = &self.plan.targets[at];
            Ok(postgres_text(target.form, &target.kind, value))
        };
        self.plan.old.iter().map(parameter).collect()
    }

    fn wrong(&self, reason: &str) -> SinkError {
        SinkError::new(&self.what, reason)
    }

    async fn truncate(&mut self) -> Result<(), SinkError> {
        self.by_key.clear();
        self.appended.clear();
        self.settle().await?;
        let deleted = self.client.execute(&format!("DELETE FROM {}", self.plan.table), &[]).await;
        deleted.map(drop).map_err(failed(&self.what))
    }

    async fn flush_if_full(&mut self, bytes: usize) -> Result<(), SinkError> {
        self.gathered_bytes += bytes;
        let rows = self.by_key.len() + self.appended.len();
        if rows >= GATHERED_ROWS || self.gathered_bytes >= GATHERED_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Sends what was gathered. First what is gone, for it may be in the way of what came.
    async fn flush(&mut self) -> Result<(), SinkError> {
        self.gathered_bytes = 0;
        let mut rows = std::mem::take(&mut self.appended);
        let mut gone = Vec::new();
        for (key, last) in self.by_key.drain() {
            match last {
                Last::Row(row) => rows.push(row),
                Last::Gone => gone.push(key),
            }
        }
        if !gone.is_empty() {
            let arrays = by_column(gone, self.plan.old.len());
            self.send(&self.plan.delete.clone(), arrays).await?;
        }
        if self.plan.targets.is_empty() {
            for _ in rows {
                self.send(&self.plan.upsert.clone(), Parameters::new()).await?;
            }
        } else if !rows.is_empty() {
            let arrays = by_column(rows, self.plan.targets.len());
            self.send(&self.plan.upsert.clone(), arrays).await?;
        }
        Ok(())
    }

    /// Sends without waiting; the server does them in this order.
    async fn send<P: ToSql + Sync + Send + 'static>(
        &mut self,
        statement: &Statement,
        parameters: Vec<P>,
    ) -> Result<(), SinkError> {
        let (client, statement) = (self.client, statement.clone());
        let mut executing: Executing<'_> =
            Box::pin(async move { client.execute_raw(&statement, parameters).await });
        // The first poll puts it on its way.
        match futures::poll!(&mut executing) {
            Poll::Ready(done) => drop(done.map_err(failed(&self.what))?),
            Poll::Pending => self.executing.push(executing),
        }
        if self.executing.len() >= PIPELINE { self.settle().await } else { Ok(()) }
    }

    async fn settle(&mut self) -> Result<(), SinkError> {
        for executing in self.executing.drain(..) {
            executing.await.map_err(failed(&self.what))?;
        }
        Ok(())
    }
}

/// Turns rows into columns.
fn by_column(rows: Vec<Parameters>, columns: usize) -> Vec<Parameters> {
    let mut arrays: Vec<Parameters> =
        (0..columns).map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        for (array, value) in arrays.iter_mut().zip(row) {
            array.push(value);
        }
    }
    arrays
}
