//! Rows of the shop, as texts that Postgres reads: for COPY when the shop is filled, for INSERT by
//! the writer.
//!
//! All rows come from one seeded generator, so a demo can be repeated. This file knows no
//! connection.

use jiff::Timestamp;
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use serde_json::json;

use crate::shop::{
    STATUSES, is_test_order,
    words::{List, WORDS},
};

/// One value for each column, `None` for NULL.
pub type Row = Vec<Option<String>>;

const SECOND_MICROS: i64 = 1_000_000;
const DAY_MICROS: i64 = 86_400 * SECOND_MICROS;

/// Generates rows.
#[derive(Debug)]
pub struct Rows {
    pub rng: SmallRng,
}

impl Rows {
    pub fn seeded(seed: u64) -> Self {
        Rows { rng: SmallRng::seed_from_u64(seed) }
    }

    pub fn pick(&mut self, words: &List) -> &'static str {
        words.choose(&mut self.rng).copied().unwrap_or_default()
    }

    /// The status of an order.
    pub fn status(&mut self) -> &'static str {
        STATUSES.choose(&mut self.rng).copied().unwrap_or_default()
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Columns of `users`, in order. `at`: registration, microseconds since 1970.
    pub fn user(&mut self, id: i64, at: i64) -> Row {
        let (first, last) = (self.pick(&WORDS.first_names), self.pick(&WORDS.last_names));
        let (street, city, postcode, country) = self.address();
        let email = format!(
            "{}.{}{}@{}",
            ascii(first),
            ascii(last),
            id % 1000,
            self.pick(&WORDS.mail_hosts)
        );
        let phone = self
            .chance(60)
            .then(|| format!("+{}", self.rng.random_range(30_100_000_000u64..49_999_999_999)));
        let seen = self.rng.random_range(0..30 * DAY_MICROS);
        let seen = self.chance(85).then(|| time(now_micros().min(at + seen)));
        vec![
            Some(id.to_string()),
            Some(self.uuid()),
            Some(email),
            Some(format!("{first} {last}")),
            phone,
            Some(street),
            Some(city),
            Some(postcode),
            Some(country),
            Some(self.password_hash()),
            Some(self.preferences()),
            Some(self.chance(70).to_string()),
            Some(cents(if self.chance(90) { 0 } else { self.rng.random_range(100..20_000) })),
            Some(time(at)),
            seen,
        ]
    }

    /// Columns of `products`, in order.
    pub fn product(&mut self, id: i64, at: i64) -> Row {
        let name = format!(
            "{} {} {}",
            self.pick(&WORDS.styles),
            self.pick(&WORDS.materials),
            self.pick(&WORDS.things)
        );
        let sentences = self.rng.random_range(2..6);
        let description: Vec<&str> = (0..sentences).map(|_| self.pick(&WORDS.sentences)).collect();
        let weight = self.chance(80).then(|| format!("{:.3}", self.rng.random_range(0.05..12.0)));
        let tags: Vec<&str> =
            (0..self.rng.random_range(0..4)).map(|_| self.pick(&WORDS.tags)).collect();
        vec![
            Some(id.to_string()),
            Some(format!("{}-{:05}", self.pick(&WORDS.colours)[..2].to_uppercase(), id)),
            Some(name),
            Some(description.join(" ")),
            Some(self.pick(&WORDS.categories).to_owned()),
            Some(cents(self.rng.random_range(3..400) * 100 + 95)),
            Some(self.rng.random_range(0..500).to_string()),
            weight,
            Some(format!("{{{}}}", tags.join(","))),
            Some(self.attributes()),
            Some(time(at)),
        ]
    }

    /// Columns of `orders`, in order, for a user and a product among so many.
    pub fn order(&mut self, id: i64, users: i64, products: i64, at: i64, status: &str) -> Row {
        let quantity = if self.chance(75) { 1 } else { self.rng.random_range(2..7) };
        let unit_price = self.rng.random_range(3..400) * 100 + 95;
        let note = self.chance(12).then(|| self.pick(&WORDS.notes).to_owned());
        let moved = if status == "placed" { 0 } else { self.rng.random_range(0..3 * DAY_MICROS) };
        let tracking = matches!(status, "shipped" | "delivered" | "returned").then(|| self.uuid());
        vec![
            Some(id.to_string()),
            Some(format!("{}-{id:08}", if is_test_order(id) { "TEST" } else { "WG" })),
            Some(self.rng.random_range(1..=users).to_string()),
            Some(self.rng.random_range(1..=products).to_string()),
            Some(status.to_owned()),
            Some(quantity.to_string()),
            Some(cents(unit_price)),
            Some(cents(unit_price * quantity)),
            Some("EUR".to_owned()),
            Some(self.ship_to()),
            note,
            tracking,
            Some(time(at)),
            Some(time(at + moved)),
        ]
    }

    /// Street with number, city, postcode, country.
    pub fn address(&mut self) -> (String, String, String, String) {
        let street = format!("{} {}", self.pick(&WORDS.streets), self.rng.random_range(1..180));
        let mut city = self.pick(&WORDS.cities).split(", ");
        let mut part = || city.next().unwrap_or_default();
        let (city, country, prefix) = (part(), part(), part());
        let postcode = format!("{prefix}{:03}", self.rng.random_range(0..1000));
        (street, city.to_owned(), postcode, country.to_owned())
    }

    pub fn preferences(&mut self) -> String {
        let language = self.pick(&WORDS.languages);
        let mut preferences = json!({
            "language": language,
            "newsletter": self.chance(40),
            "channels": [self.pick(&WORDS.channels), self.pick(&WORDS.channels)],
            "theme": if self.chance(50) { "dark" } else { "light" },
        });
        if self.chance(30) {
            preferences["favourite_category"] = self.pick(&WORDS.categories).into();
        }
        preferences.to_string()
    }

    fn attributes(&mut self) -> String {
        json!({
            "colour": self.pick(&WORDS.colours),
            "material": self.pick(&WORDS.materials),
            "rating": f64::from(self.rng.random_range(20..50)) / 10.0,
            "reviews": self.rng.random_range(0..2000),
            "dimensions_mm": [self.rng.random_range(5..90) * 10, self.rng.random_range(5..90) * 10, self.rng.random_range(1..40) * 10],
        })
        .to_string()
    }

    fn ship_to(&mut self) -> String {
        let name = format!("{} {}", self.pick(&WORDS.first_names), self.pick(&WORDS.last_names));
        let (street, city, postcode, country) = self.address();
        json!({
            "name": name,
            "street": street,
            "city": city,
            "postcode": postcode,
            "country": country,
            "carrier": self.pick(&WORDS.carriers),
            "payment": self.pick(&WORDS.payments),
        })
        .to_string()
    }

    pub fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        walgate_wire::hex::encode(&bytes)
    }

    /// Of the form that argon2id has; of no password.
    fn password_hash(&mut self) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut letters = |count: usize| -> String {
            (0..count)
                .map(|_| char::from(ALPHABET[self.rng.random_range(0..ALPHABET.len())]))
                .collect()
        };
        format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", letters(22), letters(43))
    }
}

/// As Postgres reads a timestamptz.
pub fn time(micros: i64) -> String {
    Timestamp::from_microsecond(micros).unwrap_or_default().to_string()
}

pub fn now_micros() -> i64 {
    Timestamp::now().as_microsecond()
}

fn cents(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// What of a name goes into an e-mail address.
fn ascii(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase()
}
