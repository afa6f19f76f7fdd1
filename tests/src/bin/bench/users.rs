//! The table of the measurements with guests: users as in the demo's shop. Four of five live in
//! Germany; the guest `users` keeps those.

use anyhow::{Context, Result};
use walgate_tests::Database;

/// The table's name in the gateway's configuration.
pub const TABLE: &str = "public.users";
pub const TOKEN: &str = "users";
pub const COLUMNS: usize = 15;
/// The rows that the guest keeps.
pub const KEPT: &str = "country = 'DE'";

const CREATE: &str = "
create table users (
    id bigint primary key, public_id uuid not null, email text not null, full_name text not null, phone text,
    street text not null, city text not null, postcode varchar(12) not null, country char(2) not null,
    password_hash text not null, preferences jsonb not null, is_active boolean not null,
    credit numeric(12,2) not null, created_at timestamptz not null, last_seen_at timestamptz);
create publication walgate for table users";

/// The values of user `i`, the same in every run. Germans follow no pattern that a processor could
/// learn.
const ROW: &str = "
i, md5('public' || i)::uuid,
(array['ada', 'grace', 'linus', 'alan', 'barbara', 'edsger', 'margaret'])[1 + h % 7] || '.' || substr(md5(i::text), 1, 6)
    || '@' || (array['example.org', 'example.com', 'mail.example.net', 'example.de'])[1 + (h >> 6) % 4],
(array['Ada', 'Grace', 'Linus', 'Alan', 'Barbara', 'Edsger', 'Margaret'])[1 + h % 7] || ' '
    || (array['Becker', 'Schulz', 'Hoffmann', 'Koch', 'Richter', 'Klein', 'Wolf', 'Neumann'])[1 + (h >> 9) % 8],
case when h % 3 > 0 then '+49 ' || (1510000000 + (h >> 4) % 300000000) end,
(array['Hauptstraße', 'Gartenweg', 'Am Markt', 'Lindenallee', 'Schulstraße'])[1 + (h >> 13) % 5] || ' ' || 1 + (h >> 17) % 120,
(array['Berlin', 'Hamburg', 'München', 'Köln', 'Leipzig', 'Bremen'])[1 + (h >> 21) % 6],
lpad(((h >> 24) % 99999)::text, 5, '0'),
case when (h >> 29) % 5 > 0 then 'DE' else (array['FR', 'PL', 'NL', 'AT'])[1 + (h >> 33) % 4] end,
'$argon2id$v=19$m=19456,t=2,p=1$' || substr(md5('salt' || i), 1, 22) || '$' || md5('a' || i) || substr(md5('b' || i), 1, 11),
jsonb_build_object('language', (array['de', 'en'])[1 + (h >> 5) % 2], 'newsletter', h % 2 = 0, 'page_size', 10 + (h >> 7) % 9 * 10),
h % 20 > 0, ((h >> 10) % 100000) / 100.0,
timestamptz '2024-01-01' + i * interval '37 seconds' + (h >> 8) % 36000000 * interval '1 us',
case when h % 4 > 0 then timestamptz '2025-06-01' + (h >> 24) % 36000000 * interval '1 ms' end";

/// Changes of one transaction of [`write_transactions`].
pub const CHANGES_PER_TRANSACTION: u64 = 10;
/// The updates among them.
pub const UPDATES_PER_TRANSACTION: u64 = 3;

/// Creates the table and its publication, and inserts rows 1 to `rows`.
pub async fn create(database: &Database, rows: u64) {
    database.sql(CREATE).await;
    database.sql(&insert_sql(1, rows)).await;
    database.sql("vacuum analyze users").await;
    database.sql("checkpoint").await;
}

pub fn insert_sql(first: u64, last: u64) -> String {
    let last = last.to_string();
    format!("insert into users select {ROW} {}", rows_sql(&format!("{first}::bigint"), &last))
}

/// The rows that [`ROW`] is selected from.
fn rows_sql(first: &str, last: &str) -> String {
    format!(
        "from (select i, hashint8extended(i, 7) & x'7fffffffffffffff'::bigint h from generate_series({first}, {last}) i) numbers"
    )
}

/// Transactions of ten changes in one session. Seven insert new users from `first` on, three update
/// one of 1 to `rows`. No user changes country.
pub async fn write_transactions(database: &Database, first: u64, rows: u64, transactions: u64) {
    let sql = format!(
        "do $$ declare n bigint := {first}; begin
           for k in 1..{transactions}::bigint loop
             insert into users select {ROW} {};
             update users set last_seen_at = coalesce(last_seen_at, created_at) + interval '1 hour'
              where id between 1 + n * 13 % ({rows} - 3) and 3 + n * 13 % ({rows} - 3);
             n := n + 7;
             commit;
           end loop;
         end $$",
        rows_sql("n", "n + 6")
    );
    database.sql(&sql).await;
}

/// A last transaction, with which a measurement ends: one change that the guest keeps. It commits
/// above the returned position; everything before it committed below.
pub async fn write_last(database: &Database) -> Result<walgate_wire::Lsn> {
    let before = database.value("select pg_current_wal_insert_lsn()").await;
    let first = format!("select min(id) from users where {KEPT}");
    database.sql(&format!("update users set city = 'Ulm' where id = ({first})")).await;
    before.parse().context("an LSN")
}

/// The number of rows above `id` that the guest keeps.
pub async fn kept_above(database: &Database, id: u64) -> Result<u64> {
    let sql = format!("select count(*) from users where id > {id} and {KEPT}");
    database.value(&sql).await.parse().context("a count")
}
