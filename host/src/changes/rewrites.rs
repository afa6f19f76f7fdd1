//! DDL that changes rows without a word in the stream: it is looked for in the catalog, and copies are loaded again.
//!
//! What leaves traces there is known in `source::catalog`. A look sees an alteration, not where in the stream it lies: what follows from
//! it waits until the stream has passed the moment of the look.

use std::collections::HashMap;

use walgate_wire::{Lsn, Token};

use super::Session;
use crate::{
    config::Table,
    policy::SessionError,
    schemas,
    source::catalog::{Altered, Presence, Traces},
};

/// What was seen last, by table. Sessions hand it on, so that nothing slips through between two.
#[derive(Debug, Default)]
pub struct Looks(HashMap<Token, Look>);

#[derive(Debug)]
struct Look {
    relid: u32,
    traces: Traces,
    /// What nobody has followed yet, and where the stream was when it was seen at the latest.
    altered: Vec<Altered>,
    seen: Lsn,
}

impl Looks {
    /// Whether something was altered since the last time.
    fn compare(&mut self, token: &Token, relid: u32, traces: Traces) -> bool {
        let Some(look) = self.0.get_mut(token).filter(|look| look.relid == relid) else {
            let look = Look { relid, traces, altered: vec![], seen: Lsn(0) };
            self.0.insert(token.clone(), look);
            return false;
        };
        let altered = traces.altered_since(&look.traces);
        look.traces = traces;
        look.altered.extend(&altered);
        !altered.is_empty()
    }

    fn seen_at(&mut self, token: &Token, lsn: Lsn) {
        if let Some(look) = self.0.get_mut(token) {
            look.seen = lsn;
        }
    }

    /// What was altered before the stream came to `passed`.
    fn due(&self, token: &Token, passed: Lsn) -> Vec<Altered> {
        let due = self.0.get(token).filter(|look| look.seen <= passed);
        due.map_or(vec![], |look| look.altered.clone())
    }

    fn followed(&mut self, token: &Token) {
        if let Some(look) = self.0.get_mut(token) {
            look.altered.clear();
        }
    }
}

impl Session {
    /// Of a session that begins: what was altered since the last one, or from what on it is compared.
    pub async fn look_first(&mut self) -> Result<(), SessionError> {
        let names: Vec<_> =
            self.gateway.config.tables.iter().map(|table| table.name.clone()).collect();
        let present = self.catalog.present(&names).await?;
        self.look_for_alterations(&present).await
    }

    /// Between two transactions.
    pub(super) async fn follow_alterations(
        &mut self,
        present: &[Presence],
    ) -> Result<(), SessionError> {
        self.look_for_alterations(present).await?;
        let gateway = self.gateway.clone();
        let mut looks = gateway.looks.lock().await;
        for table in &gateway.config.tables {
            let altered = looks.due(&table.token, self.stated.0);
            if !altered.is_empty() {
                self.follow(table, &altered).await?;
                looks.followed(&table.token);
            }
        }
        Ok(())
    }

    async fn look_for_alterations(&mut self, present: &[Presence]) -> Result<(), SessionError> {
        let relids: Vec<u32> = present.iter().map(|found| found.relid).collect();
        let mut traces = self.catalog.traces(&relids).await?;
        let gateway = self.gateway.clone();
        let mut looks = gateway.looks.lock().await;
        for found in present {
            let (Some(table), Some(traces)) =
                (gateway.table(&found.name), traces.remove(&found.relid))
            else {
                continue;
            };
            if looks.compare(&table.token, found.relid, traces) {
                looks.seen_at(&table.token, self.catalog.later_lsn().await?);
            }
        }
        Ok(())
    }

    /// Rows are read by the types as they are now, and what copies hold is void.
    async fn follow(&mut self, table: &Table, altered: &[Altered]) -> Result<(), SessionError> {
        let (gateway, token) = (self.gateway.clone(), &table.token);
        let changing = gateway.changing().await;
        if gateway.stopped(token).is_some() {
            // Once it flows again it is loaded again in any case.
            return Ok(());
        }
        if altered.contains(&Altered::Composite) {
            self.catalog.forget_types();
            self.open_all(&changing, table).await?;
        }
        let Some(rows) = altered.iter().find(|altered| **altered != Altered::Composite) else {
            return Ok(());
        };
        let lsn = self.catalog.later_lsn().await?;
        Ok(schemas::reseed(&gateway.schemas, token, lsn, rows.in_words()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_waits_for_the_stream_and_is_followed_once() {
        let mut looks = Looks::default();
        let token = Token::of_alias("t");
        let traces = |file: &str| Traces::for_test(file);
        assert!(!looks.compare(&token, 7, traces("1")), "nothing to compare with");
        assert!(!looks.compare(&token, 7, traces("1")));
        assert!(looks.compare(&token, 7, traces("2")));
        looks.seen_at(&token, Lsn(100));
        // A look that sees nothing new forgets nothing.
        assert!(!looks.compare(&token, 7, traces("2")));
        assert_eq!(looks.due(&token, Lsn(99)), []);
        assert_eq!(looks.due(&token, Lsn(100)), [Altered::Rewritten]);
        looks.followed(&token);
        assert_eq!(looks.due(&token, Lsn(200)), []);
        assert!(!looks.compare(&token, 8, traces("3")), "another table of the name");
    }
}
