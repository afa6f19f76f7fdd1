//! The demo's guest for `products`.
//!
//! It extracts colour and rating from the jsonb column `attributes` into columns of their own, and
//! hides the jsonb.

mod field;

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct Product<'a> {
    attributes: Json<'a>,
}

#[transform(hide("attributes"), add("colour", "text"), add("rating", "numeric"), never_drops)]
pub fn products(product: Product<'_>, out: &mut Out<'_>) -> Verdict {
    let attributes = product.attributes.0;
    out.colour(field::string_member(attributes, "colour"));
    out.rating(field::number_member(attributes, "rating"));
    Verdict::Keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_guest::test::{Change, Guest, Value};

    #[test]
    fn fields_become_columns() {
        let table = Table::new("public.products").key("id", "bigint").column("attributes", "jsonb");
        let row = |attributes: &str| {
            Change::insert([("id", 1.into()), ("attributes", attributes.into())])
        };
        let seen = Guest::<products>::new(&table).unwrap().run(&[
            row(r#"{"colour": "navy \"blue\"", "rating": 4.50, "reviews": 17}"#),
            row(r#"{"rating": "good"}"#),
        ]);
        assert_eq!(seen[0].row()["colour"], "navy \"blue\"".into());
        assert_eq!(seen[0].row()["rating"], "4.50".into());
        assert_eq!(seen[1].row()["colour"], Value::Null);
        assert_eq!(seen[1].row()["rating"], Value::Null);
        assert!(!seen[0].row().contains_key("attributes"));
    }
}
