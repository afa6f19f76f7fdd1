//! Updates that move a row to another key, or of which not all columns travelled.

use walgate_wire::Value;

use super::{
    super::{failed, plan::Target, text::postgres_text},
    Applier, Last, Parameters,
};
use crate::SinkError;

impl Applier<'_> {
    /// Gives the row that is found by its old values the new ones, its key's too. False if there is none.
    pub(super) async fn moved(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: &[Value<'_>],
    ) -> Result<bool, SinkError> {
        self.flush().await?;
        self.settle().await?;
        let found = self.old_parameters(old)?;
        if !self.plan.key.is_empty() {
            // A row that stands at the new key is one that the source does not have any more.
            let mut keys = found.clone();
            keys.extend(self.new_key(row, unchanged, Some(old))?);
            let clear = self.plan.clear(self.client).await?;
            let cleared = self.client.execute_raw(&clear, keys).await;
            cleared.map_err(failed(&self.what))?;
        }
        let Some(statement) = self.plan.update(self.client, unchanged).await? else {
            return Ok(true);
        };
        let mut parameters = self.changed_parameters(row, unchanged);
        parameters.extend(found);
        let updated = self.client.execute_raw(&statement, parameters).await;
        Ok(updated.map_err(failed(&self.what))? > 0)
    }

    /// The row at the new key gets what travelled. One that is not there is added: of the rest it holds NULL.
    pub(super) async fn merge(
        &mut self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<(), SinkError> {
        let plan = &*self.plan;
        let text = |t: &Target| postgres_text(t.form, &t.kind, &row[t.index]);
        let whole = || {
            let known = |t: &Target| (!unchanged.contains(&t.index)).then(|| text(t)).flatten();
            plan.targets.iter().map(known).collect::<Parameters>()
        };
        if plan.key.is_empty() {
            self.appended.push(whole());
            return self.flush_if_full(0).await;
        }
        let key = self.new_key(row, unchanged, old)?;
        // If the row is among those gathered, what did not travel is there.
        match self.by_key.get_mut(&key) {
            Some(last @ Last::Gone) => {
                let mut added = whole();
                for (text, &(_, at)) in key.into_iter().zip(&plan.old) {
                    added[at] = text;
                }
                *last = Last::Row(added);
                Ok(())
            }
            Some(Last::Row(gathered)) => {
                let places = gathered.iter_mut().zip(&plan.targets);
                for (place, target) in places.filter(|(_, t)| !unchanged.contains(&t.index)) {
                    *place = text(target);
                }
                Ok(())
            }
            None => {
                let mut parameters: Parameters = plan.besides_key(unchanged).map(text).collect();
                parameters.extend(key);
                let statement = self.plan.merge(self.client, unchanged).await?;
                self.send(&statement, parameters).await
            }
        }
    }

    fn changed_parameters(&self, row: &[Value<'_>], unchanged: &[usize]) -> Parameters {
        let changed = self.plan.changed(unchanged);
        changed.map(|t| postgres_text(t.form, &t.kind, &row[t.index])).collect()
    }

    /// The key that the row has now; what of it is unchanged is in the old row.
    pub(super) fn new_key(
        &self,
        row: &[Value<'_>],
        unchanged: &[usize],
        old: Option<&[Value<'_>]>,
    ) -> Result<Parameters, SinkError> {
        let parameter = |&(place, at): &(Option<usize>, usize)| {
            let target = &self.plan.targets[at];
            let value = if unchanged.contains(&target.index) {
                place.and_then(|place| old?.get(place))
            } else {
                row.get(target.index)
            };
            let value = value.ok_or_else(|| {
                self.wrong("an update says that its key is unchanged, but not what it is")
            })?;
            Ok(postgres_text(target.form, &target.kind, value))
        };
        self.plan.old.iter().map(parameter).collect()
    }
}
