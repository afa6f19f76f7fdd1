//! The table of the speed measurements: orders of about 140 bytes each in COPY's binary format.

use anyhow::{Context, Result};
use walgate_tests::Database;

/// The table's name in the gateway's configuration.
pub const TABLE: &str = "public.orders";
pub const TOKEN: &str = "orders";

const CREATE: &str = "
create table orders (
    id bigint primary key, user_id bigint not null, product_id integer not null, quantity integer not null,
    status text not null, currency char(3) not null, unit_price numeric(10,2) not null,
    total numeric(12,2) not null, note text, placed_at timestamptz not null, updated_at timestamptz not null);
create publication walgate for table orders";

/// The values of order `i`, the same in every run. They are as irregular as real orders, which
/// matters to zstd.
const ROW: &str = "
i, 1 + h % 50021, (1 + (h >> 8) % 5003)::int, (1 + (h >> 3) % 4)::int,
(array['delivered', 'delivered', 'delivered', 'shipped', 'paid', 'returned', 'placed', 'cancelled'])[1 + (h >> 12) % 8],
'EUR', (295 + (h >> 16) % 400 * 100) / 100.0, (295 + (h >> 16) % 400 * 100) * (1 + (h >> 3) % 4) / 100.0,
case when h % 3 = 0 then (array['leave it with the neighbour', 'ring twice, please', 'gift, no invoice',
    'second attempt', 'deliver after 5 pm'])[1 + (h >> 20) % 5] || ' ' || substr(md5(i::text), 1, 4)
    else 'WG-' || lpad(i::text, 9, '0') end,
timestamptz '2024-01-01' + i * interval '37 seconds' + (h >> 8) % 36000000 * interval '1 us',
timestamptz '2024-01-02' + i * interval '37 seconds' + (h >> 24) % 36000000 * interval '1 us'";

/// Changes of one transaction of [`write_transactions`].
pub const CHANGES_PER_TRANSACTION: u64 = 10;

/// Creates the table and its publication, and inserts rows 1 to `rows`.
pub async fn create(database: &Database, rows: u64) {
    database.sql(CREATE).await;
    insert(database, 1, rows).await;
    database.sql("vacuum analyze orders").await;
    database.sql("checkpoint").await;
}

/// Inserts rows `first` to `last`, in one transaction.
pub async fn insert(database: &Database, first: u64, last: u64) {
    database.sql(&insert_sql(first, last)).await;
}

pub fn insert_sql(first: u64, last: u64) -> String {
    format!(
        "insert into orders select {ROW} {}",
        rows_sql(&format!("{first}::bigint"), &last.to_string())
    )
}

/// The rows that [`ROW`] is selected from.
fn rows_sql(first: &str, last: &str) -> String {
    format!(
        "from (select i, hashint8extended(i, 7) & x'7fffffffffffffff'::bigint h from generate_series({first}, {last}) i) numbers"
    )
}

/// Transactions of ten changes in one session. Seven insert new orders from `first` on, three
/// update one of 1 to `rows`.
pub async fn write_transactions(database: &Database, first: u64, rows: u64, transactions: u64) {
    let body = format!(
        "insert into orders select {ROW} {};
         update orders set status = 'shipped', updated_at = updated_at + interval '1 hour'
          where id between 1 + n * 13 % ({rows} - 3) and 3 + n * 13 % ({rows} - 3);
         n := n + 7;",
        rows_sql("n", "n + 6")
    );
    repeat(database, first, transactions, &body).await;
}

/// Transactions of one change each. Seven of ten insert a new order, the others update one of 1 to
/// `rows`.
pub async fn write_single_changes(database: &Database, first: u64, rows: u64, transactions: u64) {
    let body = format!(
        "if k % 10 < 7 then
           insert into orders select {ROW} {};
           n := n + 1;
         else
           update orders set status = 'shipped', updated_at = updated_at + interval '1 hour'
            where id = 1 + k * 13 % {rows};
         end if;",
        rows_sql("n", "n")
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

/// A last transaction, with which a measurement ends. It commits above the returned position;
/// everything before it committed below.
pub async fn write_last(database: &Database) -> Result<walgate_wire::Lsn> {
    let before = database.value("select pg_current_wal_insert_lsn()").await;
    database.sql("update orders set note = 'the last change' where id = 1").await;
    before.parse().context("an LSN")
}
