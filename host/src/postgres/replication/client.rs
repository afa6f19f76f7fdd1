//! A thin replication client: start-up, the few commands of the replication grammar, and the
//! stream.
//!
//! Only [`socket`] knows whether the connection is TCP, encrypted or not, or a unix socket. The
//! client frames bytes. What pgoutput writes into them is not known here.

pub use super::{
    frames::{Feedback, Frame, FrameReader},
    timing::Timing,
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;
use walgate_wire::Lsn;

use super::{
    auth,
    messages::{self, Messages},
    socket::{self, Writer},
};
use crate::postgres::{PostgresError, endpoint::Endpoint, quote};

/// Answer to IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    pub system_id: String,
    pub timeline: u32,
    pub database: String,
}

/// A connection in replication mode that is not streaming yet.
pub struct ReplicationClient {
    messages: Messages,
    writer: Writer,
    timing: Timing,
}

/// One row of a simple query's answer, as text.
type TextRow = Vec<Option<String>>;

impl ReplicationClient {
    /// Connects with `replication=database` and the usual session settings.
    pub async fn connect(endpoint: &Endpoint, timing: Timing) -> Result<Self, PostgresError> {
        let socket = socket::connect_any(endpoint).await?;
        let mut messages = Messages::new(socket.reader);
        let mut writer = socket.writer;
        auth::start_up(&mut messages, &mut writer, endpoint, socket.end_point, timing).await?;
        Ok(ReplicationClient { messages, writer, timing })
    }

    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PostgresError> {
        let rows = self.run_command("IDENTIFY_SYSTEM", "identify the system").await?;
        let field = |index: usize| rows.first()?.get(index)?.as_deref();
        let identity = || {
            Some(SystemIdentity {
                system_id: field(0)?.to_owned(),
                timeline: field(1)?.parse().ok()?,
                database: field(3)?.to_owned(),
            })
        };
        identity().ok_or_else(|| {
            PostgresError::Protocol("an answer to IDENTIFY_SYSTEM that is not one".into())
        })
    }

    /// The timelines that lead to this one, and the position at which each ended. Empty if the
    /// server has no record of them.
    pub async fn left_timelines(
        &mut self,
        timeline: u32,
    ) -> Result<Vec<(u32, Lsn)>, PostgresError> {
        // The first timeline has no history.
        if timeline <= 1 {
            return Ok(vec![]);
        }
        let command = format!("TIMELINE_HISTORY {timeline}");
        let rows = match self.run_command(&command, "tell the history of its timeline").await {
            Err(PostgresError::Server { message, .. }) => {
                tracing::warn!(timeline, message, "server has no history of its timeline");
                return Ok(vec![]);
            }
            answer => answer?,
        };
        let history = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten();
        Ok(parse_history(&history.unwrap_or_default()))
    }

    /// Runs one command of the replication grammar or a simple query.
    async fn run_command(&mut self, sql: &str, what: &str) -> Result<Vec<TextRow>, PostgresError> {
        self.send_query(sql).await?;
        let mut rows = vec![];
        let mut error = None;
        loop {
            let (tag, body) = self.messages.next().await?;
            match tag {
                b'D' => rows.push(messages::read_data_row(body)?),
                b'E' => error = Some(messages::server_error(what, body)),
                b'Z' => return error.map_or(Ok(rows), Err),
                b'G' | b'H' | b'W' => {
                    return Err(PostgresError::Protocol(format!("'{sql}' began to copy")));
                }
                _ => {}
            }
        }
    }

    /// Begins streaming. A `from` below the slot's confirmed position means that position. The
    /// caller resumes from the slot, never from the current end of WAL.
    pub async fn start_replication(
        mut self,
        slot: &str,
        publication: &str,
        from: Lsn,
    ) -> Result<(FrameReader, Feedback), PostgresError> {
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {}, binary 'true', messages 'false')",
            quote::identifier(slot),
            quote::literal(&quote::identifier(publication)),
        );
        self.send_query(&sql).await?;
        loop {
            let (tag, body) = self.messages.next().await?;
            match tag {
                b'W' => break,
                b'E' => {
                    return Err(slot_error(
                        slot,
                        messages::server_error("start replication", body),
                    ));
                }
                b'Z' => {
                    return Err(PostgresError::Protocol(
                        "START_REPLICATION did not start copying".into(),
                    ));
                }
                _ => {}
            }
        }
        Ok((FrameReader::new(self.messages, self.timing), Feedback::new(self.writer)))
    }

    async fn send_query(&mut self, sql: &str) -> Result<(), PostgresError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)
            .map_err(|e| PostgresError::Protocol(format!("cannot send '{sql}': {e}")))?;
        self.writer.write_all(&out).await.map_err(PostgresError::Lost)?;
        self.writer.flush().await.map_err(PostgresError::Lost)
    }
}

/// One line per timeline: number, position, reason. Other lines are comments.
fn parse_history(text: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// 55006: another walsender holds the slot. The message ends in its process id. 55000: the slot
/// cannot be used now.
fn slot_error(slot: &str, error: PostgresError) -> PostgresError {
    match error {
        PostgresError::Server { code, message, .. } if code == "55006" => {
            PostgresError::SlotActive {
                slot: slot.to_owned(),
                pid: message.rsplit(' ').next().unwrap_or("unknown").to_owned(),
            }
        }
        // For example a slot that is synchronised from a primary. It is read again before the
        // retry.
        PostgresError::Server { code, message, .. } if code == "55000" => {
            PostgresError::SlotNotReady { slot: slot.to_owned(), reason: message }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read() {
        let text = "1\t0/3000158\tno recovery target specified\n\n# a remark\n2\t0/A0000A0\tbefore 2026-01-01\n";
        assert_eq!(parse_history(text), [(1, Lsn(0x300_0158)), (2, Lsn(0xA00_00A0))]);
        assert!(parse_history("").is_empty());
    }

    #[test]
    fn an_active_slot_is_its_own_error() {
        let server = |code: &str| PostgresError::Server {
            what: "start replication".into(),
            message: "replication slot \"s\" is active for PID 4711".into(),
            code: code.into(),
            hint: String::new(),
        };
        assert!(
            matches!(slot_error("s", server("55006")), PostgresError::SlotActive { pid, .. } if pid == "4711")
        );
        assert!(matches!(slot_error("s", server("55000")), PostgresError::SlotNotReady { .. }));
        assert!(matches!(slot_error("s", server("42704")), PostgresError::Server { .. }));
    }
}
