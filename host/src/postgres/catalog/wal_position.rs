//! Positions in the WAL and transaction ids, as the server assigns them now.
//!
//! What is compared with them is not known here.

use tokio_postgres::Client;
use walgate_wire::Lsn;

use crate::postgres::PostgresError;

/// End of the WAL that is being written.
pub(in crate::postgres) async fn read_insert_lsn(client: &Client) -> Result<Lsn, PostgresError> {
    let row = client
        .query_one("SELECT pg_current_wal_insert_lsn()::text", &[])
        .await
        .map_err(PostgresError::query("read the WAL position"))?;
    row.get::<_, &str>(0).parse().map_err(|e| PostgresError::Protocol(format!("WAL position: {e}")))
}

/// The id of a transaction that is rolled back: a commit could itself have to wait.
pub(in crate::postgres) async fn assign_xid(client: &Client) -> Result<u64, PostgresError> {
    let failed = PostgresError::query("take a transaction id");
    client.batch_execute("BEGIN READ WRITE").await.map_err(&failed)?;
    let row = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.map_err(&failed)?;
    client.batch_execute("ROLLBACK").await.map_err(&failed)?;
    parse_xid(row.get(0))
}

pub(in crate::postgres) fn parse_xid(text: &str) -> Result<u64, PostgresError> {
    text.parse().map_err(|_| PostgresError::Protocol(format!("\"{text}\" is not a transaction id")))
}
