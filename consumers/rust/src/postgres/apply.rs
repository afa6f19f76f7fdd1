//! What each change does to a table. Statements are sent ahead of their results.

use std::{pin::Pin, task::Poll};

use tokio_postgres::{Client, Statement};
use walgate_wire::{Op, Value};

use super::{failed, plan::Plan, session::Session, text::postgres_text};
use crate::{Changes, SinkError};

/// Statements that are under way at a time.
const PIPELINE: usize = 128;

type Parameters = Vec<Option<String>>;
type Executing<'a> = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'a>>;

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
        let mut applier = Applier { client: &self.client, plan, what, executing: Vec::new() };
        for change in &decoded {
            applier.apply(&change.op).await?;
        }
        applier.settle().await
    }
}

struct Applier<'a> {
    client: &'a Client,
    plan: &'a mut Plan,
    what: String,
    executing: Vec<Executing<'a>>,
}

impl Applier<'_> {
    async fn apply(&mut self, op: &Op<'_>) -> Result<(), SinkError> {
        match op {
            Op::Insert { row } => self.upsert(row).await,
            Op::Update { row, unchanged, old } => self.update(row, unchanged, old.as_deref()).await,
            Op::Delete { old } => {
                let parameters = self.old_parameters(old)?;
                self.send(&self.plan.delete.clone(), parameters).await
            }
            // Not TRUNCATE: that shows an empty table to transactions that began before.
            Op::Truncate => self.truncate().await,
        }
    }

    async fn upsert(&mut self, row: &[Value<'_>]) -> Result<(), SinkError> {
        let targets = self.plan.targets.iter();
        let parameters = targets.map(|t| postgres_text(t.form, &t.kind, &row[t.index])).collect();
        self.send(&self.plan.upsert.clone(), parameters).await
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
        let statement = self.plan.update(self.client, unchanged).await?;
        let Some(statement) = statement else { return Ok(()) };
        let changed = self.plan.changed(unchanged);
        let mut parameters: Parameters =
            changed.map(|t| postgres_text(t.form, &t.kind, &row[t.index])).collect();
        parameters.extend(match old {
            Some(old) => self.old_parameters(old)?,
            None => self.key_parameters(row, unchanged)?,
        });
        if stays {
            return self.send(&statement, parameters).await;
        }
        self.settle().await?;
        if !self.plan.key.is_empty() {
            self.clear_new_key(row, unchanged, old).await?;
        }
        let updated = self.client.execute_raw(&statement, parameters).await;
        let updated = updated.map_err(failed(&self.what))?;
        if updated == 0 && unchanged.is_empty() { self.upsert(row).await } else { Ok(()) }
    }

    /// A row that stands at the key that another moves to is one that the source does not have any more.
    async fn clear_new_key(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<(), SinkError> {
        let plan = &*self.plan;
        let value = |&(place, at): &(Option<usize>, usize)| {
            let target = &plan.targets[at];
            let kept = unchanged.contains(&target.index).then(|| old?.get(place?));
            let value = kept.flatten().unwrap_or(&row[target.index]);
            postgres_text(target.form, &target.kind, value)
        };
        let parameters = plan.old.iter().map(value).collect();
        let delete = plan.delete.clone();
        self.send(&delete, parameters).await?;
        self.settle().await
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

    fn key_parameters(
        &self,
        row: &[Value<'_>],
        unchanged: &[usize],
    ) -> Result<Parameters, SinkError> {
        let parameter = |&(_, at): &(Option<usize>, usize)| {
            let target = &self.plan.targets[at];
            if unchanged.contains(&target.index) {
                return Err(
                    self.wrong("an update says that its key is unchanged, but not what it is")
                );
            }
            Ok(postgres_text(target.form, &target.kind, &row[target.index]))
        };
        self.plan.old.iter().map(parameter).collect()
    }

    fn wrong(&self, reason: &str) -> SinkError {
        SinkError::new(&self.what, reason)
    }

    async fn truncate(&mut self) -> Result<(), SinkError> {
        self.settle().await?;
        let deleted = self.client.execute(&format!("DELETE FROM {}", self.plan.table), &[]).await;
        deleted.map(drop).map_err(failed(&self.what))
    }

    /// Sends without waiting; the server does them in this order.
    async fn send(
        &mut self,
        statement: &Statement,
        parameters: Parameters,
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
