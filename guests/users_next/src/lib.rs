//! The next version of the demo's guest for `users`, which also hides phone numbers.
//!
//! The demo swaps it in while it runs.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct User<'a> {
    email: &'a str,
    country: &'a str,
}

#[transform(hide("password_hash", "phone"), replace("email"))]
pub fn users_next(user: User<'_>, out: &mut Out<'_>) -> Verdict {
    if user.country != "DE" {
        return Verdict::Drop;
    }
    out.email(mask(user.email));
    Verdict::Keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_guest::test::{Change, Guest};

    #[test]
    fn phone_numbers_are_hidden() {
        let table = Table::new("public.users")
            .key("id", "bigint")
            .column("email", "text")
            .column("country", "character(2)")
            .nullable("phone", "text")
            .column("password_hash", "text");
        let row = [
            ("id", 1.into()),
            ("email", "ada@example.org".into()),
            ("country", "DE".into()),
            ("phone", "123".into()),
            ("password_hash", "x".into()),
        ];
        let seen = Guest::<users_next>::new(&table).unwrap().run(&[Change::insert(row)]);
        assert!(!seen[0].row().contains_key("phone"));
    }
}
