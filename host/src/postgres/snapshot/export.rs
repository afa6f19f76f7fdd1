//! The hand-over between a snapshot and the change stream.
//!
//! The watermark is L, the WAL insert position. A transaction whose commit record is below L got
//! its id before X was assigned. It is visible once every transaction up to X has finished. That
//! includes a transaction that waits for a synchronous standby: its commit record is in the log,
//! but no snapshot sees it yet. What the snapshot is for is not known here. The caller limits the
//! wait by dropping the future.

use std::{
    fmt,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, error::SqlState};
use walgate_wire::{Lsn, TableName, XidWindow};

use super::{
    copy::SnapshotReader,
    ctid_ranges::{Piece, plan_pieces},
    partitions::load_copied_relations,
    table_lock::lock_sql,
};
use crate::{
    config::PostgresConfig,
    postgres::{
        PostgresError,
        catalog::{
            SqlClient, TableInfo, assign_xid, load_row_filter, load_table, open_session, parse_xid,
            read_insert_lsn,
        },
    },
    rows::TableVersion,
};

const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(500);
/// How often the lock is requested again while another session holds it.
const LOCK_AGAIN: Duration = Duration::from_millis(50);
/// How often the caller gets a report of the blocking sessions.
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// A snapshot that other connections can import while this lives. Dropping it closes its
/// connection.
pub struct ExportedSnapshot {
    /// For `SET TRANSACTION SNAPSHOT`.
    pub name: String,
    /// Every change with a commit LSN below is in the snapshot.
    pub watermark: Lsn,
    /// Which transactions the snapshot sees, exactly.
    pub window: XidWindow,
    /// Holds the transaction that exported the snapshot.
    client: SqlClient,
    publication: String,
}

/// What delays a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotWait {
    pub since: Duration,
    pub what: &'static str,
    /// One sentence each. Empty if the server does not show them.
    pub blockers: Vec<String>,
}

impl fmt::Display for SnapshotWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot has waited {} s for {}: ", self.since.as_secs(), self.what)?;
        if self.blockers.is_empty() {
            return f.write_str(
                "who holds it back is not shown to this role (GRANT pg_read_all_stats shows it)",
            );
        }
        f.write_str(&self.blockers.join("; "))
    }
}

impl ExportedSnapshot {
    /// Opens the exporting connection. It locks the table against ALTER and TRUNCATE (ACCESS SHARE)
    /// before it takes the snapshot, because neither respects snapshots. While other transactions
    /// have to end, it calls `on_wait` every few seconds.
    ///
    /// It never waits for a lock, because it may already hold that of a partition: a deadlock could
    /// abort another session's transaction.
    ///
    /// The caller reads the change stream's last sequence before. Afterwards it checks that the
    /// table was not altered between the catalog query and the lock.
    pub async fn take(
        postgres: &PostgresConfig,
        table: &TableVersion,
        mut on_wait: impl FnMut(&SnapshotWait),
    ) -> Result<ExportedSnapshot, PostgresError> {
        let client = open_session(postgres).await?;
        let watermark = read_insert_lsn(&client).await?;
        let last = assign_xid(&client).await?;
        wait_for_xmin_above(&client, last, &mut on_wait).await?;
        let mut report = WaitReport::new("the table's lock");
        while !begin_locked(&client, table).await? {
            if report.is_due() {
                on_wait(&report.describe_wait(load_lock_holders(&client, table.relid).await?));
            }
            tokio::time::sleep(LOCK_AGAIN).await;
        }
        let row = client
            .query_one("SELECT pg_export_snapshot(), pg_current_snapshot()::text", &[])
            .await
            .map_err(PostgresError::query("export a snapshot"))?;
        let window = parse_window(row.get(1))?;
        if window.xmin <= last {
            return Err(PostgresError::Protocol(format!(
                "a snapshot's xmin went back from above {last} to {}",
                window.xmin
            )));
        }
        let publication = postgres.publication.clone();
        Ok(ExportedSnapshot { name: row.get(0), watermark, window, client, publication })
    }

    /// The table as it is now, without its partitions, if it exists. This and the next two calls
    /// use the exporting connection. Any other could wait behind an ALTER that waits for it.
    pub async fn load_table(&self, name: &TableName) -> Result<Option<TableInfo>, PostgresError> {
        load_table(&self.client, &self.publication, name).await
    }

    /// The publication's row filter of the table, as SQL.
    pub async fn load_row_filter(&self, relid: u32) -> Result<Option<String>, PostgresError> {
        load_row_filter(&self.client, &self.publication, relid).await
    }

    /// The pieces of the table for so many connections.
    pub async fn load_pieces(
        &self,
        table: &TableVersion,
        workers: usize,
    ) -> Result<Vec<Piece>, PostgresError> {
        Ok(plan_pieces(&load_copied_relations(&self.client, table).await?, workers))
    }

    /// The exporting connection as a reader. It holds the lock on the table already; others can
    /// import the snapshot as long as it lives.
    pub fn into_reader(self) -> SnapshotReader {
        SnapshotReader::new(self.client)
    }
}

/// How long a wait has lasted, and when to report it again.
struct WaitReport {
    what: &'static str,
    began: Instant,
    last: Instant,
}

impl WaitReport {
    fn new(what: &'static str) -> WaitReport {
        let now = Instant::now();
        WaitReport { what, began: now, last: now }
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= REPORT_EVERY
    }

    fn describe_wait(&mut self, blockers: Vec<String>) -> SnapshotWait {
        self.last = Instant::now();
        SnapshotWait { since: self.began.elapsed(), what: self.what, blockers }
    }
}

async fn wait_for_xmin_above(
    client: &Client,
    last: u64,
    on_wait: &mut impl FnMut(&SnapshotWait),
) -> Result<(), PostgresError> {
    let mut report = WaitReport::new("older transactions to end");
    let mut pause = POLL_MIN;
    loop {
        let row = client
            .query_one("SELECT pg_snapshot_xmin(pg_current_snapshot())::text", &[])
            .await
            .map_err(PostgresError::query("read the oldest running transaction"))?;
        if parse_xid(row.get(0))? > last {
            return Ok(());
        }
        if report.is_due() {
            on_wait(&report.describe_wait(load_blockers(client, last).await?));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// The sessions with a transaction id up to `last`. Postgres shows 32-bit ids, which are compared
/// by age. Their statements are not shown, because those may hold values.
async fn load_blockers(client: &Client, last: u64) -> Result<Vec<String>, PostgresError> {
    let query = "
SELECT format('process %s of user %s in database %s (%s) is %s since %s%s', pid, usename, datname,
              coalesce(nullif(application_name, ''), backend_type), coalesce(state, 'active'),
              date_trunc('second', xact_start),
              CASE wait_event WHEN 'SyncRep' THEN ', its commit waits for a synchronous standby' ELSE '' END)
FROM pg_catalog.pg_stat_activity
WHERE age(backend_xid) >= age($1::text::xid8::xid)
UNION ALL
SELECT format('prepared transaction %L of user %s in database %s waits for COMMIT or ROLLBACK PREPARED since %s',
              gid, owner, database, date_trunc('second', prepared))
FROM pg_catalog.pg_prepared_xacts
WHERE age(transaction) >= age($1::text::xid8::xid)
LIMIT 20";
    let rows = client
        .query(query, &[&last.to_string()])
        .await
        .map_err(PostgresError::query("read who blocks the snapshot"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The sessions that alter or truncate the table, or wait to do so.
async fn load_lock_holders(client: &Client, relid: u32) -> Result<Vec<String>, PostgresError> {
    let query = "
SELECT format('process %s of user %s (%s) %s the table', a.pid, a.usename,
              coalesce(nullif(a.application_name, ''), a.backend_type),
              CASE WHEN l.granted THEN 'has locked' ELSE 'waits to lock' END)
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE l.mode = 'AccessExclusiveLock' AND a.datname = current_database() AND l.relation IN (
  WITH RECURSIVE tree AS (
    SELECT $1::oid AS relid
    UNION ALL SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relid)
  SELECT relid FROM tree)
LIMIT 20";
    let rows = client
        .query(query, &[&relid])
        .await
        .map_err(PostgresError::query("read who has locked the table"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Takes the lock before the snapshot, which the first query takes. False: another session holds a
/// lock on the table or on a partition.
async fn begin_locked(client: &Client, table: &TableVersion) -> Result<bool, PostgresError> {
    let failed = PostgresError::query("begin the snapshot");
    let lock = lock_sql(client, table).await.map_err(&failed)?;
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {lock}");
    match client.batch_execute(&begin).await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            client.batch_execute("ROLLBACK").await.map_err(&failed)?;
            Ok(false)
        }
        Err(error) => Err(PostgresError::of_table(table, "lock the table", error)),
    }
}

/// `xmin:xmax:xip,xip,…` as `pg_snapshot` prints itself.
fn parse_window(text: &str) -> Result<XidWindow, PostgresError> {
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().unwrap_or_default();
    let xmin = parse_xid(next())?;
    let xmax = parse_xid(next())?;
    let xip =
        next().split(',').filter(|xid| !xid.is_empty()).map(parse_xid).collect::<Result<_, _>>()?;
    Ok(XidWindow { xmin, xmax, xip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_parsed() {
        let window = |xmin, xmax, xip: &[u64]| XidWindow { xmin, xmax, xip: xip.to_vec() };
        assert_eq!(parse_window("10:20:10,14").unwrap(), window(10, 20, &[10, 14]));
        assert_eq!(
            parse_window("4294967299:4294967299:").unwrap(),
            window(1 << 32 | 3, 1 << 32 | 3, &[])
        );
        for bad in ["", "1", "1:", "1:x:", "1:2:3,,x", "a:b:c"] {
            assert!(parse_window(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wait_names_the_blocking_sessions() {
        let waiting = SnapshotWait {
            since: Duration::from_secs(7),
            what: "older transactions to end",
            blockers: vec!["a".into(), "b".into()],
        };
        assert_eq!(
            waiting.to_string(),
            "the snapshot has waited 7 s for older transactions to end: a; b"
        );
    }
}
