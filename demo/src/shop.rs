//! The demo's shop: its tables, and a fast way to fill them.
//!
//! Later changes are in `writer`.

mod rows;
mod words;

pub use rows::{Row, Rows, now_micros, time};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::SinkExt;

use tokio_postgres::Client;

pub const STATUSES: [&str; 7] =
    ["placed", "paid", "packed", "shipped", "delivered", "returned", "cancelled"];
pub const TABLES: [&str; 3] = ["users", "products", "orders"];

/// The age of the oldest orders.
const TWO_YEARS_MICROS: i64 = 2 * 365 * 86_400 * 1_000_000;
/// Size at which a piece of a COPY is sent.
const PIECE_BYTES: usize = 256 << 10;

const CREATE: &str = "
CREATE TYPE order_status AS ENUM ('placed', 'paid', 'packed', 'shipped', 'delivered', 'returned', 'cancelled');
CREATE TABLE users (
    id bigint NOT NULL, public_id uuid NOT NULL, email text NOT NULL, full_name text NOT NULL, phone text,
    street text NOT NULL, city text NOT NULL, postcode varchar(12) NOT NULL, country char(2) NOT NULL,
    password_hash text NOT NULL, preferences jsonb NOT NULL, is_active boolean NOT NULL,
    credit numeric(12,2) NOT NULL, created_at timestamptz NOT NULL, last_seen_at timestamptz);
CREATE TABLE products (
    id bigint NOT NULL, sku text NOT NULL, name text NOT NULL, description text NOT NULL, category text NOT NULL,
    price numeric(10,2) NOT NULL, stock integer NOT NULL, weight_kg numeric(8,3), tags text[] NOT NULL,
    attributes jsonb NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE orders (
    id bigint NOT NULL, number text NOT NULL, user_id bigint NOT NULL, product_id bigint NOT NULL,
    status order_status NOT NULL, quantity integer NOT NULL, unit_price numeric(10,2) NOT NULL,
    total numeric(12,2) NOT NULL, currency char(3) NOT NULL, ship_to jsonb NOT NULL, note text,
    tracking_id uuid, placed_at timestamptz NOT NULL, updated_at timestamptz NOT NULL)";

/// Created after loading: building an index is faster than maintaining it.
const INDEX: &str = "
ALTER TABLE users ADD PRIMARY KEY (id);
ALTER TABLE products ADD PRIMARY KEY (id);
ALTER TABLE orders ADD PRIMARY KEY (id);
CREATE INDEX ON orders (user_id);
ANALYZE";

/// Test orders of the shop's staff, which a guest filters out.
pub fn is_test_order(id: i64) -> bool {
    id % 25 == 7
}

/// How many rows each table begins with.
#[derive(Clone, Copy, Debug)]
pub struct Shop {
    pub users: i64,
    pub products: i64,
    pub orders: i64,
}

impl Shop {
    pub fn of_orders(orders: u32) -> Shop {
        let orders = i64::from(orders);
        Shop { users: (orders / 10).max(200), products: (orders / 100).clamp(100, 5000), orders }
    }

    /// Creates the tables and fills them.
    pub async fn create(self, postgres: &Client) -> Result<()> {
        postgres.batch_execute(CREATE).await.context("creating the shop's tables")?;
        let now = now_micros();
        let at = move |id: i64, of: i64| now - TWO_YEARS_MICROS + TWO_YEARS_MICROS / of * (id - 1);
        let Shop { users, products, orders } = self;
        let mut rows = Rows::seeded(7);
        copy_in(postgres, "users", users, |id| rows.user(id, at(id, users))).await?;
        copy_in(postgres, "products", products, |id| rows.product(id, at(id, products))).await?;
        copy_in(postgres, "orders", orders, |id| {
            let status = if rows.chance(90) { "delivered" } else { rows.status() };
            rows.order(id, users, products, at(id, orders), status)
        })
        .await?;
        postgres.batch_execute(INDEX).await.context("indexing the shop's tables")?;
        Ok(())
    }
}

async fn copy_in(
    postgres: &Client,
    table: &str,
    count: i64,
    mut row: impl FnMut(i64) -> Row,
) -> Result<()> {
    let filling = || format!("filling {table}");
    let sink = postgres
        .copy_in::<_, Bytes>(&format!("COPY {table} FROM STDIN"))
        .await
        .with_context(filling)?;
    let mut sink = std::pin::pin!(sink);
    let mut piece = String::with_capacity(PIECE_BYTES + 4096);
    for id in 1..=count {
        append_copy_line(&mut piece, &row(id));
        if piece.len() >= PIECE_BYTES {
            sink.send(Bytes::copy_from_slice(piece.as_bytes())).await.with_context(filling)?;
            piece.clear();
        }
    }
    sink.send(Bytes::from(piece)).await.with_context(filling)?;
    sink.close().await.with_context(filling)?;
    Ok(())
}

/// One line of COPY's text format.
fn append_copy_line(line: &mut String, row: &Row) {
    for (index, value) in row.iter().enumerate() {
        if index > 0 {
            line.push('\t');
        }
        let Some(value) = value else {
            line.push_str("\\N");
            continue;
        };
        for c in value.chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                c => line.push(c),
            }
        }
    }
    line.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_copy_reads() {
        let mut line = String::new();
        append_copy_line(&mut line, &vec![Some("a\tb\\".into()), None, Some(String::new())]);
        assert_eq!(line, "a\\tb\\\\\t\\N\t\n");
    }

    #[test]
    fn the_same_seed_makes_the_same_shop() {
        let (mut a, mut b) = (Rows::seeded(1), Rows::seeded(1));
        assert_eq!(a.user(1, 0), b.user(1, 0));
        assert_eq!(a.order(1, 10, 10, 0, "paid"), b.order(1, 10, 10, 0, "paid"));
        assert_eq!(a.product(1, 0), b.product(1, 0));
    }
}
