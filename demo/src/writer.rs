//! The demo's customers and staff: a steady flow of small transactions against the shop.
//!
//! Orders, stock and users change together, so most transactions span tables. Some are rolled back,
//! and consumers must never see them. This file does not know where the changes go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_postgres::Client;

use crate::{
    board::Board,
    latency::Probes,
    shop::{self, Row, Rows, Shop, now_micros, time},
};
use walgate_host::postgres::quote::literal;

/// The interval between transactions; together with their duration it is the demo's load.
const PERIOD: Duration = Duration::from_micros(3300);
/// One of so many orders is followed to the replica.
const ORDERS_PER_PROBE: i64 = 8;

/// Writes until it is stopped.
pub struct Writer {
    postgres: Client,
    rows: Rows,
    shop: Shop,
    next_order: i64,
    next_user: i64,
    board: Board,
    probes: Probes,
}

/// The writer's final counts.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// The very last transaction inserts this order.
    pub last_order: i64,
}

impl Writer {
    pub fn new(postgres: Client, shop: Shop, board: Board, probes: Probes) -> Self {
        let (next_order, next_user) = (shop.orders + 1, shop.users + 1);
        Writer { postgres, rows: Rows::seeded(11), shop, next_order, next_user, board, probes }
    }

    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Written> {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Biased: stopping comes before the next transaction.
            tokio::select! {
                biased;
                _ = stop.wait_for(|&stop| stop) => break,
                _ = ticks.tick() => {}
            }
            self.transaction().await.context("the demo's writer")?;
            self.board.add_transaction();
        }
        while shop::is_test_order(self.next_order) {
            self.next_order += 1;
        }
        let last_order = self.next_order;
        let insert = self.order_sql();
        self.postgres.batch_execute(&insert).await.context("the demo's last order")?;
        Ok(Written { last_order })
    }

    async fn transaction(&mut self) -> Result<()> {
        let sql = match self.rows.rng.random_range(0..100) {
            0..40 => return self.place_order().await,
            40..70 => self.move_order_on(),
            70..80 => self.deliver_stock(),
            80..90 => self.edit_user(),
            90..93 => self.register_user(),
            93..96 => self.delete_order(),
            96..97 => self.delete_user(),
            97..99 => self.change_price(),
            _ => format!("BEGIN; {}; {}; ROLLBACK", self.delete_user(), self.change_price()),
        };
        // Several statements in one message are one transaction.
        self.postgres.batch_execute(&sql).await?;
        Ok(())
    }

    /// Order, stock and customer in one transaction.
    async fn place_order(&mut self) -> Result<()> {
        let order = self.next_order;
        let (user, product) = (self.some_user(), self.some_product());
        let now = time(now_micros());
        let statements = format!(
            "{}; UPDATE products SET stock = greatest(stock - 1, 0), updated_at = '{now}' WHERE id = {product}; \
             UPDATE users SET last_seen_at = '{now}' WHERE id = {user}",
            self.order_sql()
        );
        if order % ORDERS_PER_PROBE != 0 || shop::is_test_order(order) {
            self.postgres.batch_execute(&statements).await?;
            return Ok(());
        }
        self.postgres.batch_execute(&format!("BEGIN; {statements}")).await?;
        let commit_sent = Instant::now();
        self.postgres.batch_execute("COMMIT").await?;
        self.probes.follow(order, commit_sent);
        Ok(())
    }

    fn order_sql(&mut self) -> String {
        let order = self.rows.order(
            self.next_order,
            self.shop.users,
            self.shop.products,
            now_micros(),
            "placed",
        );
        self.next_order += 1;
        insert("orders", &order)
    }

    fn move_order_on(&mut self) -> String {
        let (order, status, tracking) = (self.recent_order(), self.rows.status(), self.rows.uuid());
        let now = time(now_micros());
        format!(
            "UPDATE orders SET status = '{status}', updated_at = '{now}', \
             tracking_id = coalesce(tracking_id, '{tracking}') WHERE id = {order}"
        )
    }

    fn deliver_stock(&mut self) -> String {
        let (product, pieces) = (self.some_product(), self.rows.rng.random_range(10..200));
        let now = time(now_micros());
        format!(
            "UPDATE products SET stock = stock + {pieces}, updated_at = '{now}' WHERE id BETWEEN {product} AND {product} + 4"
        )
    }

    fn edit_user(&mut self) -> String {
        let user = self.some_user();
        let (street, city, postcode, country) = self.rows.address();
        let preferences = self.rows.preferences();
        format!(
            "UPDATE users SET street = {}, city = {}, postcode = '{postcode}', country = '{country}', \
             preferences = {} WHERE id = {user}",
            literal(&street),
            literal(&city),
            literal(&preferences)
        )
    }

    fn register_user(&mut self) -> String {
        let user = self.rows.user(self.next_user, now_micros());
        self.next_user += 1;
        insert("users", &user)
    }

    fn delete_order(&mut self) -> String {
        format!("DELETE FROM orders WHERE id = {}", self.recent_order())
    }

    /// Deletes the user with all orders.
    fn delete_user(&mut self) -> String {
        let user = self.some_user();
        format!("DELETE FROM orders WHERE user_id = {user}; DELETE FROM users WHERE id = {user}")
    }

    fn change_price(&mut self) -> String {
        let (product, percent) = (self.some_product(), self.rows.rng.random_range(-20..25));
        format!(
            "UPDATE products SET price = round(price * (100 + {percent}) / 100, 2) WHERE id = {product}"
        )
    }

    fn some_user(&mut self) -> i64 {
        self.rows.rng.random_range(1..self.next_user)
    }

    fn some_product(&mut self) -> i64 {
        self.rows.rng.random_range(1..=self.shop.products)
    }

    /// Most work concerns recent orders.
    fn recent_order(&mut self) -> i64 {
        let oldest = if self.rows.chance(80) { (self.next_order - 5000).max(1) } else { 1 };
        self.rows.rng.random_range(oldest..self.next_order)
    }
}

fn insert(table: &str, row: &Row) -> String {
    let values: Vec<String> = row
        .iter()
        .map(|value| value.as_deref().map_or_else(|| "NULL".to_owned(), literal))
        .collect();
    format!("INSERT INTO {table} VALUES ({})", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled() {
        let row = vec![Some("O'Brien".to_owned()), None];
        assert_eq!(insert("users", &row), "INSERT INTO users VALUES ('O''Brien', NULL)");
    }
}
