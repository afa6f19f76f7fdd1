//! The table of the speed measurements: orders of about 140 bytes a row in COPY's binary format, as in `LIMITS.md`.

use anyhow::{Context, Result};
use walgate_tests::Database;

/// As the gateway is told.
pub const TABLE: &str = "public.orders";
pub const TOKEN: &str = "orders";

const CREATE: &str = "
create table orders (
    id bigint primary key, user_id bigint not null, product_id integer not null, quantity integer not null,
    status text not null, currency char(3) not null, unit_price numeric(10,2) not null,
    total numeric(12,2) not null, note text, placed_at timestamptz not null, updated_at timestamptz not null);
create publication walgate for table orders";

/// Values of order `i`: steady but not constant, as orders are.
const ROW: &str = "
i, 1 + i * 7919 % 50021, (1 + i * 104729 % 5003)::int, (1 + i % 4)::int,
(array['placed', 'paid', 'packed', 'shipped', 'delivered', 'returned', 'cancelled'])[1 + (i * 31 + i / 11) % 7], 'EUR',
(300 + i * 48271 % 39700) / 100.0, (300 + i * 48271 % 39700) * (1 + i % 4) / 100.0,
case when i % 3 = 0 then (array['leave it with the neighbour', 'ring twice, please', 'gift, no invoice',
    'second attempt', 'deliver after 5 pm'])[1 + i / 3 % 5] || ' ' || substr(md5(i::text), 1, 4)
    else 'WG-' || lpad(i::text, 9, '0') end,
timestamptz '2024-01-01' + i * interval '37 seconds' + i * 7 % 1000 * interval '1 ms',
timestamptz '2024-01-02' + i * interval '37 seconds' + i * 13 % 1000 * interval '1 ms'";

/// Changes of one transaction of [`write_transactions`].
pub const CHANGES_PER_TRANSACTION: u64 = 10;

/// The table, its publication, and rows 1 to `rows`.
pub async fn create(database: &Database, rows: u64) {
    database.sql(CREATE).await;
    insert(database, 1, rows).await;
    database.sql("vacuum analyze orders").await;
    database.sql("checkpoint").await;
}

/// Rows `first` to `last`, in one transaction.
pub async fn insert(database: &Database, first: u64, last: u64) {
    database.sql(&insert_sql(first, last)).await;
}

pub fn insert_sql(first: u64, last: u64) -> String {
    format!("insert into orders select {ROW} from generate_series({first}::bigint, {last}) i")
}

/// Transactions of seven new orders from `first` on and three changed ones among 1 to `rows`, in one session.
pub async fn write_transactions(database: &Database, first: u64, rows: u64, transactions: u64) {
    let body = format!(
        "insert into orders select {ROW} from generate_series(n, n + 6) i;
         update orders set status = 'shipped', updated_at = updated_at + interval '1 hour'
          where id between 1 + n * 13 % ({rows} - 3) and 3 + n * 13 % ({rows} - 3);
         n := n + 7;"
    );
    repeat(database, first, transactions, &body).await;
}

/// Transactions of one change each: seven of ten insert a new order, the others change one of 1 to `rows`.
pub async fn write_single_changes(database: &Database, first: u64, rows: u64, transactions: u64) {
    let body = format!(
        "if k % 10 < 7 then
           insert into orders select {ROW} from generate_series(n, n) i;
           n := n + 1;
         else
           update orders set status = 'shipped', updated_at = updated_at + interval '1 hour'
            where id = 1 + k * 13 % {rows};
         end if;"
    );
    repeat(database, first, transactions, &body).await;
}

async fn repeat(database: &Database, first: u64, transactions: u64, body: &str) {
    let sql = format!(
        "do $$ declare n bigint := {first}; begin
           for k in 1..{transactions}::bigint loop {body} commit; end loop;
         end $$"
    );
    database.sql(&sql).await;
}

/// A last transaction that a measurement ends with. Everything before it committed below the position that is
/// returned, and it commits above: `0/0`-style text.
pub async fn write_last(database: &Database) -> Result<walgate_wire::Lsn> {
    let before = database.value("select pg_current_wal_insert_lsn()").await;
    database.sql("update orders set note = 'the last change' where id = 1").await;
    before.parse().context("an LSN")
}
