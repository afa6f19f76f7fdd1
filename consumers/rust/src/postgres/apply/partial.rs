//! Updates that change a row's key, and updates that do not contain all columns.

use walgate_wire::Value;

use super::{
    super::{error::postgres_error, statements::PostgresTarget, text::postgres_text},
    Parameters, PendingRow, PostgresApplier,
};
use crate::SinkError;

impl PostgresApplier<'_> {
    /// Updates the row with the old key, including its key. Returns false if there is no such row.
    pub(super) async fn move_row(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: &[Value<'_>],
    ) -> Result<bool, SinkError> {
        self.flush_pending().await?;
        self.await_results().await?;
        let old_key = self.old_parameters(old)?;
        if !self.statements.key.is_empty() {
            // A row with the new key no longer exists at the source.
            let mut keys = old_key.clone();
            keys.extend(self.new_key(row, unchanged, Some(old))?);
            let clear = self.statements.clear_statement(self.client).await?;
            let cleared = self.client.execute_raw(&clear, keys).await;
            cleared.map_err(postgres_error(&self.what))?;
        }
        let Some(statement) = self.statements.update_statement(self.client, unchanged).await?
        else {
            return Ok(true);
        };
        let mut parameters = self.changed_parameters(row, unchanged);
        parameters.extend(old_key);
        let updated = self.client.execute_raw(&statement, parameters).await;
        Ok(updated.map_err(postgres_error(&self.what))? > 0)
    }

    /// Updates the sent columns of the row with the new key. A missing row is inserted, with NULL
    /// in the other columns.
    pub(super) async fn merge_row(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<(), SinkError> {
        let statements = &*self.statements;
        let text = |t: &PostgresTarget| postgres_text(t.form, &t.kind, &row[t.index]);
        let whole = || {
            let known =
                |t: &PostgresTarget| (!unchanged.contains(&t.index)).then(|| text(t)).flatten();
            statements.targets.iter().map(known).collect::<Parameters>()
        };
        if statements.key.is_empty() {
            self.pending_inserts.push(whole());
            return self.flush_if_full(0).await;
        }
        let key = self.new_key(row, unchanged, old)?;
        // If the row is pending, it has the values that were not sent.
        match self.pending_by_key.get_mut(&key) {
            Some(last @ PendingRow::Delete) => {
                let mut added = whole();
                for (text, &(_, at)) in key.into_iter().zip(&statements.old) {
                    added[at] = text;
                }
                *last = PendingRow::Upsert(added);
                Ok(())
            }
            Some(PendingRow::Upsert(pending)) => {
                let places = pending.iter_mut().zip(&statements.targets);
                for (place, target) in places.filter(|(_, t)| !unchanged.contains(&t.index)) {
                    *place = text(target);
                }
                Ok(())
            }
            None => {
                let mut parameters: Parameters =
                    statements.changed_outside_key(unchanged).map(text).collect();
                parameters.extend(key);
                let statement = self.statements.merge_statement(self.client, unchanged).await?;
                self.send_statement(&statement, parameters).await
            }
        }
    }

    fn changed_parameters(&self, row: &[Value<'_>], unchanged: &[usize]) -> Parameters {
        let changed = self.statements.changed_columns(unchanged);
        changed.map(|t| postgres_text(t.form, &t.kind, &row[t.index])).collect()
    }

    /// The row's new key. Unchanged columns of it are in the old row.
    pub(super) fn new_key(
        &self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<Parameters, SinkError> {
        let parameter = |&(place, at): &(Option<usize>, usize)| {
            let target = &self.statements.targets[at];
            let value = if unchanged.contains(&target.index) {
                place.and_then(|place| old?.get(place))
            } else {
                row.get(target.index)
            };
            let value = value.ok_or_else(|| {
                self.invalid_change("an update has an unchanged key, but no old row with its value")
            })?;
            Ok(postgres_text(target.form, &target.kind, value))
        };
        self.statements.old.iter().map(parameter).collect()
    }
}
