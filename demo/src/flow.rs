//! The changes between two moments, table by table.

use walgate_wire::Token;

use crate::board::Bytes;
use walgate_host::observe::counts::TableCounts;

#[derive(Clone, Debug, Default)]
pub struct Flow {
    pub tables: Vec<TableFlow>,
}

#[derive(Clone, Debug)]
pub struct TableFlow {
    pub token: Token,
    pub changes: u64,
    pub bytes: Bytes,
}

impl Flow {
    pub fn between(before: &[(Token, TableCounts)], after: &[(Token, TableCounts)]) -> Flow {
        let earlier = |token: &Token| {
            before
                .iter()
                .find(|(t, _)| t == token)
                .map(|(_, counts)| counts.clone())
                .unwrap_or_default()
        };
        let table = |(token, now): &(Token, TableCounts)| {
            let before = earlier(token);
            TableFlow {
                token: token.clone(),
                changes: now.changes - before.changes,
                bytes: Bytes {
                    raw: now.raw_bytes - before.raw_bytes,
                    sent: now.sent_bytes - before.sent_bytes,
                },
            }
        };
        Flow { tables: after.iter().map(table).collect() }
    }

    pub fn all(&self) -> Bytes {
        let sum = |of: fn(&Bytes) -> u64| self.tables.iter().map(|table| of(&table.bytes)).sum();
        Bytes { raw: sum(|b| b.raw), sent: sum(|b| b.sent) }
    }

    pub fn of(&self, token: &Token) -> Option<&TableFlow> {
        self.tables.iter().find(|table| table.token == *token)
    }
}
