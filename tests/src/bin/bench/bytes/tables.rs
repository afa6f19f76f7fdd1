//! The tables whose bytes are counted: two of the demo's shop, and readings of sensors.
//!
//! Rows of the shop come from the demo's seeded generator. One seed makes the rows for training,
//! others make the measured rows.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;
use tokio::time::MissedTickBehavior;
use walgate_demo::shop::{Row, Rows, Shop, now_micros, time};
use walgate_tests::{Site, postgres::connect};

pub const TABLES: [&str; 3] = ["users", "orders", "readings"];
/// Rows of each table.
pub const ROWS: i64 = 10_000;

const PRODUCTS: i64 = 500;
const TRAINED_SEED: u64 = 7;
const CHANGES_SEED: u64 = 1001;
const MEASURED_SEED: u64 = 2002;
/// Rows of one INSERT.
const ROWS_PER_INSERT: usize = 500;
/// Long enough for each change to become a message of its own.
const CHANGE_EVERY: Duration = Duration::from_millis(4);
const MINUTE_MICROS: i64 = 60_000_000;

const CREATE_READINGS: &str = "
create table readings (
    id bigint primary key, device_id integer not null, metric text not null, value double precision not null,
    unit text not null, quality smallint not null, battery_mv integer not null, at timestamptz not null)";

pub fn describe(table: &str) -> &'static str {
    match table {
        "users" => {
            "15 columns, mostly texts: names, address, e-mail, jsonb, a random password hash and uuid"
        }
        "orders" => "14 columns: ids, enum, numerics, times, a jsonb address, some notes and uuids",
        _ => "8 columns of a sensor's readings: ids, metric, value, unit, time",
    }
}

pub async fn create(site: &Site) -> Result<()> {
    let shop = Shop { users: ROWS, products: PRODUCTS, orders: ROWS };
    shop.create(&connect(&site.database.url()).await).await?;
    site.sql(CREATE_READINGS).await;
    fill_table(site, "readings", &mut Rows::seeded(TRAINED_SEED)).await
}

/// Replaces all rows by others.
pub async fn replace_rows(site: &Site) -> Result<()> {
    for table in TABLES {
        site.sql(&format!("truncate {table}")).await;
        fill_table(site, table, &mut Rows::seeded(MEASURED_SEED)).await?;
    }
    Ok(())
}

async fn fill_table(site: &Site, table: &str, rows: &mut Rows) -> Result<()> {
    let begin = now_micros() - ROWS * 10 * MINUTE_MICROS;
    let mut readings = Readings::new(begin);
    let mut values = vec![];
    for id in 1..=ROWS {
        let at = begin + id * 10 * MINUTE_MICROS;
        let row = match table {
            "users" => rows.user(id, at),
            "orders" => order_by_key(rows, id, at),
            "readings" => readings.next(rows, id),
            _ => bail!("rows of {table} are not known"),
        };
        values.push(literals(&row));
        if values.len() == ROWS_PER_INSERT || id == ROWS {
            site.sql(&format!("insert into {table} values {}", values.join(", "))).await;
            values.clear();
        }
    }
    Ok(())
}

fn order_by_key(rows: &mut Rows, id: i64, at: i64) -> Row {
    let status = if rows.chance(90) { "delivered" } else { rows.status() };
    rows.order(id, ROWS, PRODUCTS, at, status)
}

/// One transaction for each change, as the demo's writer does.
pub async fn write_changes(site: &Site, count: i64) -> Result<()> {
    let mut rows = Rows::seeded(CHANGES_SEED);
    let mut ticks = tokio::time::interval(CHANGE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..count {
        ticks.tick().await;
        let now = now_micros();
        let some = rows.rng.random_range(1..=ROWS);
        let sql = match rows.rng.random_range(0..100) {
            0..40 => format!(
                "insert into orders values {}",
                literals(&rows.order(ROWS + 1 + number, ROWS, PRODUCTS, now, "placed"))
            ),
            40..70 => format!(
                "update orders set status = '{}', updated_at = '{}', tracking_id = coalesce(tracking_id, '{}') where id = {some}",
                rows.status(),
                time(now),
                rows.uuid()
            ),
            70..85 => {
                format!("insert into users values {}", literals(&rows.user(ROWS + 1 + number, now)))
            }
            85..95 => format!("update users set last_seen_at = '{}' where id = {some}", time(now)),
            _ => format!("delete from orders where id = {some}"),
        };
        site.sql(&sql).await;
    }
    // The last changes are in flight.
    let end = site.database.value("select pg_current_wal_lsn()").await;
    walgate_tests::stream::wait_for_commit(&site.broker, end.parse().context("an LSN")?).await;
    Ok(())
}

/// `('1', null, 'it''s')`
fn literals(row: &Row) -> String {
    let literal = |value: &Option<String>| match value {
        Some(value) => format!("'{}'", value.replace('\'', "''")),
        None => "null".to_owned(),
    };
    format!("({})", row.iter().map(literal).collect::<Vec<_>>().join(", "))
}

/// Fifty devices report three metrics each minute; the values drift.
struct Readings {
    begin: i64,
    values: [f64; 150],
}

const METRICS: [(&str, &str, f64); 3] =
    [("temperature", "°C", 20.0), ("humidity", "%", 45.0), ("pressure", "hPa", 1013.0)];

impl Readings {
    fn new(begin: i64) -> Readings {
        Readings { begin, values: std::array::from_fn(|series| METRICS[series % 3].2) }
    }

    fn next(&mut self, rows: &mut Rows, id: i64) -> Row {
        let count = self.values.len();
        let series = (id as usize - 1) % count;
        let (metric, unit, _) = METRICS[series % 3];
        let value = &mut self.values[series];
        *value += f64::from(rows.rng.random_range(-3i32..=3)) / 10.0;
        let device = 1000 + series / 3;
        let at = self.begin + (id - 1) / count as i64 * MINUTE_MICROS;
        let quality = if rows.chance(98) { 0 } else { 2 };
        let texts = [
            id.to_string(),
            device.to_string(),
            metric.to_owned(),
            format!("{value:.1}"),
            unit.to_owned(),
            quality.to_string(),
            (3300 - id / 400 - device as i64 % 7 * 10).to_string(),
            time(at),
        ];
        texts.into_iter().map(Some).collect()
    }
}
