//! The demo's guest for `users`.
//!
//! It keeps the rows of one region, hides password hashes and masks e-mail addresses. The region is
//! the parameter `region`, by default `DE`.

use walgate_guest::prelude::*;

#[derive(Columns)]
pub struct User<'a> {
    email: &'a str,
    country: &'a str,
}

#[derive(Parameters)]
pub struct UsersConfig {
    #[parameter(default = "DE")]
    region: String,
}

#[transform(hide("password_hash"), replace("email"))]
pub fn users(user: User<'_>, config: &UsersConfig, out: &mut Out<'_>) -> Verdict {
    if user.country != config.region {
        return Verdict::Drop;
    }
    out.email(mask(user.email));
    Verdict::Keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_guest::test::{Change, Guest, Value};

    fn table() -> Table {
        Table::new("public.users")
            .key("id", "bigint")
            .column("email", "text")
            .column("country", "character(2)")
            .column("password_hash", "text")
    }

    fn ada(country: &'static str) -> [(&'static str, Value); 4] {
        [
            ("id", 1.into()),
            ("email", "ada@example.org".into()),
            ("country", country.into()),
            ("password_hash", "$argon2id$…".into()),
        ]
    }

    #[test]
    fn addresses_are_masked_and_hashes_hidden() {
        let seen = Guest::<users>::new(&table()).unwrap().run(&[Change::insert(ada("DE"))]);
        assert_eq!(seen[0].row()["email"], "a***@example.org".into());
        assert!(!seen[0].row().contains_key("password_hash"));
    }

    #[test]
    fn a_user_who_leaves_the_region_is_deleted() {
        let moves = [Change::update(ada("FR")), Change::update(ada("DE"))];
        let seen = Guest::<users>::new(&table()).unwrap().run(&moves);
        assert_eq!(seen[0].op(), Some(Op::Delete));
        assert_eq!(seen[1].op(), Some(Op::Update));
    }

    #[test]
    fn the_region_is_a_parameter() {
        let mut guest = Guest::<users>::new(&table().parameter("region", "FR")).unwrap();
        let seen = guest.run(&[Change::snapshot(ada("FR")), Change::snapshot(ada("DE"))]);
        assert_eq!(seen[0].op(), Some(Op::Snapshot));
        assert_eq!(seen[1].op(), None);
        let misspelt = Guest::<users>::new(&table().parameter("regoin", "FR"));
        assert_eq!(misspelt.unwrap_err(), "the guest has no parameter regoin; it takes region");
    }
}
