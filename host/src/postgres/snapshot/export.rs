//! The hand-over between a snapshot and the change stream.
//!
//! The watermark is L, the WAL insert position. Whatever has its commit record below L had its transaction id
//! before X was assigned, and is visible once every transaction up to X has finished: also one that waits for a
//! synchronous standby, whose commit record is in the log while no snapshot sees it yet. What is done with the
//! snapshot is `source::snapshot`'s business; how long to wait is the caller's, who drops the future.

use std::{
    fmt,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, error::SqlState};
use walgate_wire::{Lsn, XidWindow};

use crate::{
    postgres::{ErrorKind, PostgresError, catalog::SqlClient, quote, snapshot::SnapshotReader},
    rows::TableVersion,
};

const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(500);
/// How often a lock is asked for that somebody else has.
const LOCK_AGAIN: Duration = Duration::from_millis(50);
/// How often the caller is told who blocks.
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// Where Postgres finds that `row_security = off` cannot be had. The code alone also means missing rights, and the
/// words are translated.
const ROW_SECURITY_ROUTINE: &str = "check_enable_rls";

/// A snapshot that other connections can import while this lives. Dropping it closes its connection.
pub struct ExportedSnapshot {
    /// For `SET TRANSACTION SNAPSHOT`.
    pub name: String,
    /// Every change with a commit LSN below is in the snapshot.
    pub watermark: Lsn,
    /// Which transactions the snapshot sees, exactly.
    pub window: XidWindow,
    /// Holds the transaction that exported the snapshot.
    client: SqlClient,
}

/// What a snapshot waits for before it can be taken.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub since: Duration,
    pub what: &'static str,
    /// One sentence each; empty if the server does not show them.
    pub blockers: Vec<String>,
}

impl fmt::Display for Waiting {
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
    /// `client` becomes the exporting connection. The table is locked against ALTER and TRUNCATE (ACCESS SHARE)
    /// before the snapshot is taken, because neither respects snapshots. `on_wait` is called every few seconds
    /// while other transactions have to end.
    ///
    /// It never waits for a lock, for it may have that of a partition already: a deadlock could cost somebody else's
    /// transaction.
    ///
    /// The caller notes the change stream's last sequence before, and sees to it that the table was not altered
    /// between its reading the catalog and the lock.
    pub async fn take(
        client: SqlClient,
        table: &TableVersion,
        mut on_wait: impl FnMut(&Waiting),
    ) -> Result<ExportedSnapshot, PostgresError> {
        let watermark = insert_lsn(&client).await?;
        let last = current_xid(&client).await?;
        wait_for_xmin_above(&client, last, &mut on_wait).await?;
        let mut report = Report::begin("the table's lock");
        while !begin_locked(&client, table).await? {
            if report.is_due() {
                on_wait(&report.waiting(lock_holders(&client, table.relid).await?));
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
        Ok(ExportedSnapshot { name: row.get(0), watermark, window, client })
    }

    /// For questions about the table: only this connection is sure not to wait behind an ALTER that waits for it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The exporting connection as a reader. It holds the lock on the table already; others can import the
    /// snapshot as long as it lives.
    pub fn into_reader(self) -> SnapshotReader {
        SnapshotReader::new(self.client)
    }
}

/// When to say for how long something was waited for.
struct Report {
    what: &'static str,
    began: Instant,
    last: Instant,
}

impl Report {
    fn begin(what: &'static str) -> Report {
        let now = Instant::now();
        Report { what, began: now, last: now }
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= REPORT_EVERY
    }

    fn waiting(&mut self, blockers: Vec<String>) -> Waiting {
        self.last = Instant::now();
        Waiting { since: self.began.elapsed(), what: self.what, blockers }
    }
}

/// End of the WAL that is being written.
pub(crate) async fn insert_lsn(client: &Client) -> Result<Lsn, PostgresError> {
    let row = client
        .query_one("SELECT pg_current_wal_insert_lsn()::text", &[])
        .await
        .map_err(PostgresError::query("read the WAL position"))?;
    row.get::<_, &str>(0).parse().map_err(|e| PostgresError::Protocol(format!("WAL position: {e}")))
}

/// The id of a transaction that is rolled back: a commit could itself have to wait.
pub(crate) async fn current_xid(client: &Client) -> Result<u64, PostgresError> {
    let failed = PostgresError::query("take a transaction id");
    client.batch_execute("BEGIN READ WRITE").await.map_err(&failed)?;
    let row = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.map_err(&failed)?;
    client.batch_execute("ROLLBACK").await.map_err(&failed)?;
    parse_xid(row.get(0))
}

async fn wait_for_xmin_above(
    client: &Client,
    last: u64,
    on_wait: &mut impl FnMut(&Waiting),
) -> Result<(), PostgresError> {
    let mut report = Report::begin("older transactions to end");
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
            on_wait(&report.waiting(blockers(client, last).await?));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// Who has a transaction id up to `last`. Postgres shows 32-bit ids: they are compared by age. What they run is not
/// told: others' statements hold others' values.
async fn blockers(client: &Client, last: u64) -> Result<Vec<String>, PostgresError> {
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

/// Who alters or truncates the table, or waits to do so.
async fn lock_holders(client: &Client, relid: u32) -> Result<Vec<String>, PostgresError> {
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

/// The lock comes before the snapshot, which the first query takes. False: somebody else holds the table, or has part
/// of it.
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
        Err(error) => Err(table_error(table, "lock the table", error)),
    }
}

/// What keeps a table from being altered or truncated, or fails at once; nothing where there is nothing to lock.
pub(super) async fn lock_sql(
    client: &Client,
    table: &TableVersion,
) -> Result<String, tokio_postgres::Error> {
    let row = client
        .query_opt("SELECT relkind FROM pg_catalog.pg_class WHERE oid = $1", &[&table.relid])
        .await?;
    Ok(match row.map(|row| row.get::<_, i8>(0) as u8) {
        Some(b'r') => {
            format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT", quote::table(&table.name))
        }
        Some(b'p') => {
            format!("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", quote::table(&table.name))
        }
        // Postgres locks neither foreign tables nor materialized views on demand, and a view has no rows.
        _ => String::new(),
    })
}

/// What the server refuses because of this table stops this table only.
pub(crate) fn table_error(
    table: &TableVersion,
    what: &'static str,
    source: tokio_postgres::Error,
) -> PostgresError {
    let error = PostgresError::Sql { what, source };
    match error.kind() {
        ErrorKind::Fatal => {
            PostgresError::Table { table: table.name.to_string(), what: describe(&error) }
        }
        _ => error,
    }
}

/// With the server's own words, which `tokio_postgres::Error` keeps as a source.
fn describe(error: &PostgresError) -> String {
    let PostgresError::Sql { what, source } = error else { return error.to_string() };
    match source.as_db_error() {
        Some(db) if db.routine() == Some(ROW_SECURITY_ROUTINE) => format!(
            "row level security hides rows of it from the gateway's role, so copies would miss them (could not {what}: {}): \
             as a superuser run ALTER ROLE … BYPASSRLS, or take the table's policies off that role",
            db.message()
        ),
        Some(db) => {
            let hint = db.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            let words = walgate_pg_connect::describe_db_error(db);
            format!("Postgres refused to {what}: {words}{hint}")
        }
        None => error.to_string(),
    }
}

/// `xmin:xmax:xip,xip,…` as `pg_snapshot` prints itself.
fn parse_window(text: &str) -> Result<XidWindow, PostgresError> {
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (xmin, xmax, xip) = (parse_xid(next())?, parse_xid(next())?, next());
    let xip =
        xip.split(',').filter(|xid| !xid.is_empty()).map(parse_xid).collect::<Result<_, _>>()?;
    Ok(XidWindow { xmin, xmax, xip })
}

fn parse_xid(text: &str) -> Result<u64, PostgresError> {
    text.parse().map_err(|_| PostgresError::Protocol(format!("\"{text}\" is not a transaction id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read() {
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
    fn a_wait_names_who_blocks() {
        let waiting = Waiting {
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
