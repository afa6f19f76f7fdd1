//! DDL that changes rows without a word in the stream: it is looked for in the catalog, and copies are loaded again.
//!
//! What leaves traces there is known in `source::catalog`. A look sees an alteration, not where in the stream it lies: copies that are
//! older than the look are void, and types are read again once the stream has passed its moment.

use std::collections::HashMap;

use walgate_wire::{Lsn, Token};

use crate::cdc::session::Session;
use crate::{
    config::Table,
    error::SessionError,
    postgres::catalog::{Altered, Presence, Traces},
    schema_registry,
};

/// What was seen last, by table. Sessions hand it on, so that nothing slips through between two.
/// What was seen last, by table. Sessions hand it on, so that nothing slips through between two.
#[derive(Debug, Default)]
pub struct Looks(HashMap<Token, Look>);

#[derive(Debug)]
struct Look {
    relid: u32,
    traces: Traces,
    /// A composite type was altered before the stream came here, and nobody has followed yet.
    composite: Option<Lsn>,
}

impl Looks {
    /// What was altered since the last time.
    fn altered(&self, token: &Token, relid: u32, traces: &Traces) -> Vec<Altered> {
        let before = self.0.get(token).filter(|look| look.relid == relid);
        before.map_or(vec![], |look| traces.altered_since(&look.traces))
    }

    /// `composite`: a type was altered since the last time, before this position.
    fn remember(&mut self, token: &Token, relid: u32, traces: Traces, composite: Option<Lsn>) {
        let before = self.0.get(token).filter(|look| look.relid == relid);
        let composite = composite.or(before.and_then(|look| look.composite));
        self.0.insert(token.clone(), Look { relid, traces, composite });
    }

    /// Whether a type was altered before the stream came to `passed`.
    fn is_due(&self, token: &Token, passed: Lsn) -> bool {
        let look = self.0.get(token);
        look.and_then(|look| look.composite).is_some_and(|seen| seen <= passed)
    }

    fn followed(&mut self, token: &Token) {
        if let Some(look) = self.0.get_mut(token) {
            look.composite = None;
        }
    }
}

impl Session {
    /// Of a session that begins: what was altered since the last one, or from what on it is compared.
    pub async fn look_first(&mut self) -> Result<(), SessionError> {
        let gateway = self.gateway.clone();
        let tables = &gateway.config.tables;
        let names: Vec<_> = tables.iter().map(|table| table.name.clone()).collect();
        let present = self.catalog.present(&names).await?;
        self.know(&present).await?;
        self.look_for_alterations(&present).await
    }

    pub(super) async fn follow_alterations(
        &mut self,
        present: &[Presence],
    ) -> Result<(), SessionError> {
        self.look_for_alterations(present).await?;
        let gateway = self.gateway.clone();
        let mut looks = gateway.looks.lock().await;
        for table in &gateway.config.tables {
            if looks.is_due(&table.token, self.stated.0) {
                self.read_types_anew(table).await?;
                looks.followed(&table.token);
            }
        }
        Ok(())
    }

    /// Copies whose rows were altered are void from now on. Types are read again later, for rows of the old shape may
    /// still be on their way.
    async fn look_for_alterations(&mut self, present: &[Presence]) -> Result<(), SessionError> {
        let relids: Vec<u32> = present.iter().map(|found| found.relid).collect();
        let mut traces = self.catalog.traces(&relids).await?;
        let lsn = self.catalog.later_lsn().await?;
        let gateway = self.gateway.clone();
        let mut looks = gateway.looks.lock().await;
        for found in present {
            let (Some(table), Some(traces)) =
                (gateway.table(&found.name), traces.remove(&found.relid))
            else {
                continue;
            };
            let token = &table.token;
            let altered = looks.altered(token, found.relid, &traces);
            let is_composite = |altered: &&Altered| **altered == Altered::Composite;
            if let Some(rows) = altered.iter().find(|altered| !is_composite(altered)) {
                let _changing = gateway.changing().await;
                schema_registry::reseed(&gateway.schemas, token, lsn, rows.in_words()).await?;
            }
            let composite = altered.iter().find(is_composite).map(|_| lsn);
            looks.remember(token, found.relid, traces, composite);
        }
        Ok(())
    }

    /// Rows are read by the types as they are now; whether copies are void is seen by what they are made of.
    async fn read_types_anew(&mut self, table: &Table) -> Result<(), SessionError> {
        self.catalog.forget_types();
        let gateway = self.gateway.clone();
        let changing = gateway.changing().await;
        match gateway.stopped(&table.token) {
            // Once it flows again it is read anew in any case.
            Some(_) => Ok(()),
            None => self.open_all(&changing, table).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_altered_is_told_once_and_types_wait_for_the_stream() {
        let mut looks = Looks::default();
        let token = Token::of_alias("t");
        let mut look = |relid, file: &str, composite| {
            let traces = Traces::for_test(file);
            let altered = looks.altered(&token, relid, &traces);
            looks.remember(&token, relid, traces, composite);
            (altered, looks.is_due(&token, Lsn(99)), looks.is_due(&token, Lsn(100)))
        };
        assert_eq!(look(7, "1", None), (vec![], false, false), "nothing to compare with");
        assert_eq!(look(7, "1", None), (vec![], false, false));
        assert_eq!(look(7, "2", Some(Lsn(100))), (vec![Altered::Rewritten], false, true));
        // A look that sees nothing new forgets nothing.
        assert_eq!(look(7, "2", None), (vec![], false, true));
        assert_eq!(look(8, "3", None), (vec![], false, false), "another table of the name");
        looks.remember(&token, 8, Traces::for_test("3"), Some(Lsn(5)));
        looks.followed(&token);
        assert!(!looks.is_due(&token, Lsn(200)));
    }
}
