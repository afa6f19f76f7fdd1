//! The load of every case: random transactions over six tables, from a seed. Three tables change
//! their shapes, one has a guest, one has no key, one has rows of some megabytes. This file does
//! not know the oracles.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use walgate_tests::{audit::Tables, fixtures, workload::Generator};

/// The share of DDL in all transactions.
pub const DDL_SHARE: f64 = 0.008;

/// Tables without a guest.
pub const PLAIN: [&str; 5] = ["a", "b", "c", "bag", "huge"];
/// The table of `guests/users`; the view `ADMITTED` expresses in SQL what that guest does in Rust.
pub const GUARDED: &str = "users";
pub const ADMITTED: &str = "admitted";
pub const ALL: [&str; 6] = ["a", "b", "c", "bag", "huge", GUARDED];

/// The tables for the audit.
pub const TABLES: Tables<'static> = Tables {
    whole: &[("a", "a"), ("b", "b"), ("c", "c"), ("bag", "bag"), ("huge", "huge")],
    filtered: &[(GUARDED, GUARDED)],
};

const CREATE: &str = "
    create table bag (v int, pad text);
    alter table bag replica identity full;
    create table huge (id int primary key, n int, body text, noise bytea);
    alter table huge alter body set storage external;
    create function noise(bytes int) returns bytea language sql as
        $$ select string_agg(decode(md5(random()::text), 'hex'), '') from generate_series(1, bytes / 16) $$;";

/// Creates the tables and their first rows. `rows` is for the tables whose snapshots need some
/// size.
pub fn create(rows: u64) -> String {
    format!(
        "{}{}{CREATE}
         insert into bag select i % 100, repeat('p', 1 + i % 200) from generate_series(1, {rows}) i;
         insert into huge values (1, 1, repeat('body', 50000), noise(200000));",
        Generator::create(),
        fixtures::create_users(rows)
    )
}

/// One row for each table: Postgres announces a new shape only with the next row.
pub const LAST: &str = "insert into a (id) values (-2); insert into b (id) values ('last');
    insert into c (id) values ('ffffffff-ffff-4fff-8fff-ffffffffffff')";

pub struct Workload {
    generator: Generator,
    random: SmallRng,
    ddl_share: f64,
}

impl Workload {
    pub fn new(seed: u64, ddl_share: f64) -> Workload {
        let random = SmallRng::seed_from_u64(!seed);
        Workload { generator: Generator::new(seed), random, ddl_share }
    }

    /// The next transaction.
    pub fn next_script(&mut self) -> String {
        if self.random.random_bool(self.ddl_share) {
            return self.generator.next_ddl();
        }
        let rest = self.generator.next_transaction();
        let rest = rest.strip_prefix("begin;").unwrap_or(&rest);
        let (user, bag, huge) =
            (self.user_statement(), self.bag_statement(), self.huge_statement());
        format!("begin; {user} {bag} {huge} {rest}")
    }

    /// Rows enter and leave the filter, change their keys, and are deleted.
    fn user_statement(&mut self) -> String {
        let n: u32 = self.random.random_range(0..100_000);
        let id = format!("(select id from users offset {} limit 1)", n % 200);
        match n % 8 {
            0 | 1 => format!(
                "insert into users (email, country) values ('x{n}@example.com', (array['DE','FR'])[1 + {n} % 2]);"
            ),
            2 | 3 => format!(
                "update users set country = (array['DE','FR','PL'])[1 + {n} % 3] where id = {id};"
            ),
            4 => format!("update users set email = 'n{n}' || email where id = {id};"),
            5 => format!("update users set about = repeat(md5('{n}'), 200) where id = {id};"),
            6 => format!("update users set id = nextval('users_id_seq') where id = {id};"),
            _ => format!("delete from users where id = {id};"),
        }
    }

    fn bag_statement(&mut self) -> String {
        let n: u32 = self.random.random_range(0..100_000);
        match n % 4 {
            0 | 1 => format!("insert into bag select {n} % 100, 'pad' from generate_series(1, 3);"),
            2 => format!(
                "update bag set v = v + 1 where ctid in (select ctid from bag offset {n} % 50 limit 1);"
            ),
            _ => "delete from bag where ctid in (select ctid from bag order by v limit 2);"
                .to_owned(),
        }
    }

    /// Mostly does nothing: one row weighs as much as a thousand others.
    fn huge_statement(&mut self) -> String {
        let n: u32 = self.random.random_range(0..100_000);
        let id = n % 5;
        match self.random.random_range(0..100) {
            0 => format!(
                "insert into huge values ({id}, {n}, 'new', noise(1500000)) on conflict (id) do update set noise = excluded.noise;"
            ),
            1..4 => format!(
                "insert into huge values ({id}, {n}, repeat('{n}', 20000), null) on conflict (id) do update set body = excluded.body;"
            ),
            // Values out of line stay unchanged and are not sent.
            4..12 => format!("update huge set n = {n} where id <= {id};"),
            12 => format!("delete from huge where id = {id};"),
            _ => String::new(),
        }
    }
}
