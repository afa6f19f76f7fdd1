//! Seeded load: the same seed writes the same statements. This file does not know the oracles.

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

/// The number of keys; small, so that statements often meet each other's rows.
const KEYS: i32 = 60;

/// One table as the generator models it.
#[derive(Clone, Debug)]
struct Table {
    name: &'static str,
    /// SQL for the key of a number, in the type of the key column.
    key: fn(i32) -> String,
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    ty: &'static str,
}

/// Column types, each with the types that it can be changed to.
const TYPES: [(&str, &[&str]); 8] = [
    ("int", &["bigint", "text", "numeric"]),
    ("bigint", &["numeric", "text"]),
    ("numeric", &["text"]),
    ("text", &[]),
    ("boolean", &["text"]),
    ("timestamptz", &["text"]),
    ("jsonb", &["text"]),
    ("text[]", &[]),
];

/// Generates random transactions, and sometimes random DDL.
pub struct Generator {
    rng: SmallRng,
    tables: Vec<Table>,
    columns_made: u32,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        let column = |name: &str, ty| Column { name: name.to_owned(), ty };
        let by_number = |n: i32| n.to_string();
        let by_text = |n: i32| format!("'key {n}'");
        let by_uuid = |n: i32| format!("'00000000-0000-4000-8000-{n:012}'");
        Generator {
            rng: SmallRng::seed_from_u64(seed),
            tables: vec![
                Table {
                    name: "a",
                    key: by_number,
                    columns: vec![column("v", "int"), column("w", "text")],
                },
                Table {
                    name: "b",
                    key: by_text,
                    columns: vec![column("v", "jsonb"), column("w", "numeric")],
                },
                Table {
                    name: "c",
                    key: by_uuid,
                    columns: vec![column("v", "timestamptz"), column("w", "text[]")],
                },
            ],
            columns_made: 0,
        }
    }

    /// The tables of [`Generator::create`].
    pub const TABLES: [&str; 3] = ["a", "b", "c"];

    /// Three kinds of key and three replica identities.
    pub fn create() -> &'static str {
        "create table a (id int primary key, v int, w text);
         create table b (id text primary key, v jsonb, w numeric);
         create table c (id uuid not null, v timestamptz, w text[], constraint c_key unique (id));
         alter table b replica identity full;
         alter table c replica identity using index c_key;"
    }

    /// The next transaction, as one script.
    pub fn next_transaction(&mut self) -> String {
        let mut sql = String::from("begin;\n");
        for _ in 0..self.rng.random_range(1..=12) {
            sql += &self.next_statement();
        }
        sql + if self.rng.random_bool(0.1) { "rollback;" } else { "commit;" }
    }

    fn next_statement(&mut self) -> String {
        let table = self.tables.choose(&mut self.rng).expect("there are tables").clone();
        let Table { name, key, columns } = &table;
        let id = key(self.rng.random_range(0..KEYS));
        match self.rng.random_range(0..100) {
            0..45 => {
                let names: Vec<_> = columns.iter().map(|c| format!("{:?}", c.name)).collect();
                let values: Vec<_> =
                    columns.iter().map(|c| self.random_literal(c.ty, true)).collect();
                let assigned: Vec<_> =
                    names.iter().map(|n| format!("{n} = excluded.{n}")).collect();
                let comma =
                    |list: Vec<String>| list.iter().map(|x| format!(", {x}")).collect::<String>();
                let conflict = match assigned.is_empty() {
                    true => "do nothing".to_owned(),
                    false => format!("do update set {}", assigned.join(", ")),
                };
                format!(
                    "insert into {name} (id{}) values ({id}{}) on conflict (id) {conflict};\n",
                    comma(names),
                    comma(values)
                )
            }
            45..75 => match columns.choose(&mut self.rng) {
                Some(column) => {
                    let value = self.random_literal(column.ty, true);
                    let last = key(self.rng.random_range(0..KEYS));
                    format!(
                        "update {name} set {:?} = {value} where id between {id} and {last};\n",
                        column.name
                    )
                }
                None => String::new(),
            },
            75..85 => {
                let new = key(self.rng.random_range(0..KEYS));
                format!(
                    "update {name} set id = {new} where id = {id} and not exists (select 1 from {name} where id = {new});\n"
                )
            }
            85..98 => format!("delete from {name} where id = {id};\n"),
            98 => format!("truncate {name};\n"),
            _ => format!(
                "insert into {name} (id) select {id} where not exists (select 1 from {name} where id = {id});\n"
            ),
        }
    }

    /// One ALTER TABLE, or nothing.
    pub fn next_ddl(&mut self) -> String {
        let at = self.rng.random_range(0..self.tables.len());
        let table = self.tables[at].name;
        let count = self.tables[at].columns.len();
        self.columns_made += 1;
        let new = format!("col {}", self.columns_made);
        let some = if count > 0 { self.rng.random_range(0..count) } else { 0 };
        match self.rng.random_range(0..5) {
            0 | 1 if count < 6 => {
                let (ty, _) = *TYPES.choose(&mut self.rng).expect("there are types");
                let default = match self.rng.random_bool(0.5) {
                    true => format!(" default {}", self.random_literal(ty, false)),
                    false => String::new(),
                };
                self.tables[at].columns.push(Column { name: new.clone(), ty });
                format!("alter table {table} add column {new:?} {ty}{default};")
            }
            2 if count > 1 => {
                let old = self.tables[at].columns.remove(some).name;
                format!("alter table {table} drop column {old:?};")
            }
            3 if count > 0 => {
                let old = std::mem::replace(&mut self.tables[at].columns[some].name, new.clone());
                format!("alter table {table} rename column {old:?} to {new:?};")
            }
            _ if count > 0 => {
                let column = &mut self.tables[at].columns[some];
                let (_, to) = *TYPES.iter().find(|(ty, _)| *ty == column.ty).expect("a known type");
                let Some(to) = to.choose(&mut self.rng) else { return String::new() };
                column.ty = to;
                let name = &column.name;
                format!(
                    "alter table {table} alter column {name:?} drop default; \
                     alter table {table} alter column {name:?} type {to} using {name:?}::{to};"
                )
            }
            _ => String::new(),
        }
    }

    /// Returns true with this probability.
    pub fn random_bool(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    pub fn random_below(&mut self, limit: u32) -> u32 {
        self.rng.random_range(0..limit)
    }

    /// `large`: the value may be stored out of line. It is then a subquery, which a default does
    /// not allow.
    fn random_literal(&mut self, ty: &str, large: bool) -> String {
        let n: i32 = self.rng.random_range(-1000..1000);
        if self.rng.random_bool(0.15) {
            return "null".to_owned();
        }
        match ty {
            "int" | "bigint" => n.to_string(),
            "numeric" => match n % 20 {
                0 => "'NaN'::numeric".to_owned(),
                _ => format!("{n}.{:03}", n.unsigned_abs() % 1000),
            },
            "boolean" => (n % 2 == 0).to_string(),
            "timestamptz" => match n % 15 {
                0 => "'infinity'::timestamptz".to_owned(),
                1 => "'0044-03-15 12:00:00+00 BC'::timestamptz".to_owned(),
                _ => format!(
                    "'2024-01-01 00:00:00+00'::timestamptz + {n} * interval '1 hour 1 microsecond'"
                ),
            },
            "jsonb" => format!("'{{\"n\": {n}, \"s\": [null, true, \"é{n}\"]}}'::jsonb"),
            "text[]" => format!("array['x{n}', null, 'y \"quoted\", {{}}']"),
            // Sometimes out of line, so that updates of other columns leave it unchanged.
            _ if large && n % 7 == 0 => {
                format!("(select string_agg(md5('{n}' || i), '') from generate_series(1, 150) i)")
            }
            _ => format!("'text {n} 🦀'"),
        }
    }
}
