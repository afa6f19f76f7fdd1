//! The demo's guest for `orders`.
//!
//! It drops test orders, truncates the time of an order to the hour, and adds the price of all
//! items before shipping and rebates. The number of a test order begins with `TEST-`, or with the
//! parameter `test_prefix`.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Order<'a> {
    number: &'a str,
    quantity: i32,
    unit_price: Numeric<'a>,
    placed_at: Timestamp,
}

#[derive(Parameters)]
pub struct OrdersConfig {
    #[parameter(default = "TEST-")]
    test_prefix: String,
}

#[transform(replace("placed_at", "timestamptz"), add("items_total", "numeric"))]
pub fn orders(
    order: Order<'_>,
    config: &OrdersConfig,
    out: &mut Out<'_>,
) -> Result<Verdict, String> {
    if order.number.starts_with(&config.test_prefix) {
        return Ok(Verdict::Drop);
    }
    let total = order.unit_price.decimal().and_then(|price| price.checked_mul(order.quantity));
    let total = total.ok_or_else(|| format!("{} × {}", order.quantity, order.unit_price))?;
    out.items_total(total);
    out.placed_at(order.placed_at.truncate_to_hour());
    Ok(Verdict::Keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_guest::test::{Guest, Outcome};

    fn run(lines: &str) -> Vec<Outcome> {
        let table = Table::new("public.orders")
            .key("id", "bigint")
            .column("number", "text")
            .column("quantity", "integer")
            .column("unit_price", "numeric(10,2)")
            .column("placed_at", "timestamp with time zone");
        Guest::<orders>::new(&table).unwrap().run_json(lines).unwrap()
    }

    #[test]
    fn the_total_is_exact_and_the_time_truncated() {
        let seen = run(
            r#"{"op":"insert","new":{"id":1,"number":"WG-1","quantity":3,"unit_price":"19.95","placed_at":"2024-05-01T10:59:59.9Z"}}"#,
        );
        assert_eq!(seen[0].row()["items_total"], "59.85".into());
        let ten = Timestamp(1_714_557_600_000_000);
        assert_eq!(seen[0].row()["placed_at"], ten.into());
    }

    #[test]
    fn test_orders_are_dropped_and_a_price_of_nan_is_an_error() {
        let seen = run(
            r#"{"op":"insert","new":{"id":1,"number":"TEST-1","quantity":1,"unit_price":"1","placed_at":0}}
               {"op":"insert","new":{"id":2,"number":"WG-2","quantity":1,"unit_price":"NaN","placed_at":0}}"#,
        );
        assert_eq!(seen, [Outcome::Dropped, Outcome::Error("1 × NaN".into())]);
    }
}
