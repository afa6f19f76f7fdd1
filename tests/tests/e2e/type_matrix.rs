//! Every type in PROTOCOL.md, its extremes, and nested: through snapshots and changes into both
//! sinks.

use walgate_tests::{Database, Site, on_each_postgres};

/// Each column type with its literals. NULL is tried with all of them.
const MATRIX: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767", "0"]),
    ("integer", &["-2147483648", "2147483647", "127", "128", "-33"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807", "4294967296"]),
    ("oid", &["0", "4294967295"]),
    ("real", &["0", "-0", "1.5", "3.4028235e38", "1e-45", "NaN", "Infinity", "-Infinity", "0.1"]),
    (
        "double precision",
        &[
            "0",
            "-0",
            "0.1",
            "1.7976931348623157e308",
            "5e-324",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e16",
        ],
    ),
    (
        "numeric",
        &[
            "0",
            "-0.000000000000000000000000000001",
            "123456789012345678901234567890.123456789",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e-16383",
            "10000",
            "0.0001",
            "-99999999",
            "1.50",
            "1e1000",
        ],
    ),
    ("numeric(12,4)", &["12345678.9", "-0.0001", "0"]),
    ("money", &["12.34", "-92233720368547758.08", "0"]),
    (
        "text",
        &["", " ", "plain", "tab\tand\nline", "quote ' \" \\ {}", "日本語 🦀 é", "null", "NaN"],
    ),
    ("varchar(20)", &["", "x", "🦀🦀"]),
    ("char(5)", &["", "ab", "abcde"]),
    ("\"char\"", &["a", ""]),
    ("name", &["a name", ""]),
    ("bytea", &["", "\\x00ff10", "\\xdeadbeef"]),
    ("uuid", &["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("json", &["{}", "null", " { \"b\" : 1.10, \"a\": [1, 2 ]} ", "\"é\""]),
    (
        "jsonb",
        &[
            "{}",
            "null",
            "{\"b\": 1.10, \"a\": [null, true], \"a\": 2}",
            "123456789012345678901234567890",
        ],
    ),
    ("xml", &["<a>é</a>", ""]),
    (
        "timestamptz",
        &[
            "2026-11-22 16:51:38.123456+00",
            "1970-01-01 00:00:00+00",
            "1969-12-31 23:59:59.999999+00",
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00+00 BC",
            "4714-11-24 00:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "0001-01-01 00:00:00+00",
            "2024-03-31 03:30:00+02",
            "9999-12-31 23:59:59+00",
            "10000-01-01 00:00:00+00",
        ],
    ),
    (
        "timestamp",
        &[
            "2026-11-22 16:51:38.1",
            "infinity",
            "-infinity",
            "0001-12-31 23:59:59.999999 BC",
            "294276-12-31 23:59:59.999999",
        ],
    ),
    ("timestamp(0)", &["2026-11-22 16:51:38.6"]),
    (
        "date",
        &[
            "2024-02-29",
            "infinity",
            "-infinity",
            "0001-01-01 BC",
            "5874897-12-31",
            "4714-11-24 BC",
            "1969-12-31",
        ],
    ),
    ("time", &["00:00:00", "23:59:59.999999", "24:00:00", "12:00:00.5"]),
    ("timetz", &["12:00:00+02", "00:00:00-15:59:59", "24:00:00+00", "12:34:56.789+05:30"]),
    (
        "interval",
        &[
            "0",
            "1 year 2 mons 3 days 04:05:06.789",
            "-1 year -2 mons +3 days -04:05:06",
            "1 mon -1 day",
            "100000000:00:00",
            "-00:00:00.000001",
            "13 mons",
            "-178000000 years",
            "1 day",
        ],
    ),
    (
        "inet",
        &[
            "192.168.0.1",
            "10.1.2.3/8",
            "::1",
            "2001:db8::ff/64",
            "::ffff:1.2.3.4",
            "0.0.0.0/0",
            "fe80::1:0:0:1",
        ],
    ),
    ("cidr", &["192.168.0.0/24", "2001:db8::/32", "10.0.0.1/32"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("bit(4)", &["1010", "0000"]),
    ("bit varying(20)", &["", "1", "10101010101"]),
    ("tsvector", &["", "'a':1A 'fat':2B,4C 'it''s'", "quick brown fox"]),
    ("tsquery", &["fat & (rat | cat)", "!a:*B"]),
    ("int4range", &["empty", "[1,10)", "(,5]", "(,)", "[5,5]"]),
    ("numrange", &["[1.5,2.5]", "(,)"]),
    ("tstzrange", &["[\"2024-01-01 00:00:00+00\",infinity)", "(,\"2024-01-01 12:00:00+00\"]"]),
    ("daterange", &["[2024-01-01,2024-02-01)"]),
    ("int4multirange", &["{}", "{[1,3),[5,9)}"]),
    ("point", &["(1.5,-2)", "(NaN,Infinity)"]),
    ("line", &["{1,2,3}"]),
    ("lseg", &["[(0,0),(1,1)]"]),
    ("box", &["(2,2),(1,1)"]),
    ("path", &["((0,0),(1,1),(2,0))", "[(0,0),(1,1)]"]),
    ("polygon", &["((0,0),(1,1),(2,0))"]),
    ("circle", &["<(1,2),3.5>"]),
    ("pg_lsn", &["16/B374D848", "0/0"]),
    ("regclass", &["pg_class"]),
    ("xid8", &["18446744073709551615"]),
    ("txid_snapshot", &["10:20:10,14,15"]),
    ("jsonpath", &["$.\"a\"[*]?(@ > 1)"]),
    ("mood", &["happy", "so-so", "it's \"sad\""]),
    ("positive", &["1", "2147483647"]),
    ("email", &["a@b.example", ""]),
    (
        "integer[]",
        &["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "{{{1},{2}},{{3},{NULL}}}", "[5:6]={1,2}"],
    ),
    ("text[]", &["{}", "{\"\",NULL,\"null\",\"a,b\",\"q\\\"\\\\\",é🦀}", "{{a,b},{c,d}}"]),
    ("boolean[]", &["{t,f,NULL}"]),
    ("numeric[]", &["{1.50,NaN,-0.001,NULL}"]),
    ("double precision[]", &["{1.5,NaN,Infinity,-Infinity,NULL,1e300}"]),
    ("bytea[]", &["{\"\\\\x00ff\",\"\\\\x\"}"]),
    ("uuid[]", &["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}"]),
    (
        "timestamptz[]",
        &["{\"2026-11-22 16:51:38.5+00\",infinity,NULL,\"0044-03-15 12:00:00+00 BC\"}"],
    ),
    ("date[]", &["{2024-02-29,infinity}"]),
    ("time[]", &["{24:00:00,00:00:00.5}"]),
    ("interval[]", &["{\"1 day\",\"-00:00:01\"}"]),
    ("inet[]", &["{10.0.0.1/8,::1}"]),
    ("jsonb[]", &["{\"{\\\"a\\\": [1, null]}\",NULL,\"2\"}"]),
    ("mood[]", &["{happy,NULL,\"it's \\\"sad\\\"\"}"]),
    ("int4range[]", &["{\"[1,5)\",empty}"]),
    ("point[]", &["{\"(1,2)\",\"(3,4)\"}"]),
    ("positive[]", &["{1,2}"]),
    ("address", &["(Main Street,5,\"{a,b}\")", "(,,)", "(\"with, comma and \\\"quote\\\"\",7,{})"]),
    ("address[]", &["{\"(x,1,{})\",NULL}"]),
    ("place", &["(\"(Main,1,{})\",\"(1,2)\",happy)"]),
    (
        "stamp",
        &[
            "(\"2024-01-01 00:00:00.5+00\",a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,\"\\\\x00ff\",2024-02-29,1.5)",
            "(infinity,,\"\\\\x\",-infinity,NaN)",
            "(,,,,)",
            "(\"0044-03-15 12:00:00+00 BC\",00000000-0000-0000-0000-000000000000,,\"0001-01-01 BC\",-0.10)",
        ],
    ),
    ("stamp[]", &["{\"(\\\"2024-01-01 00:00:00+02\\\",,,1969-12-31,)\",NULL}", "{}"]),
    (
        "visit",
        &[
            "(\"(infinity,,,,)\",\"{\"\"2024-01-01 12:00:00+00\"\",NULL}\",24:00:00,\"2024-01-01 00:00:00.25\")",
        ],
    ),
    ("moment", &["2026-11-22 16:51:38.123456+00", "infinity", "0044-03-15 12:00:00+00 BC"]),
    ("key_id", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("late_moment", &["2026-11-22 16:51:38.5+00", "-infinity"]),
    ("birthday", &["2024-02-29", "infinity", "0001-01-01 BC"]),
    ("blob", &["\\x00ff", "\\x"]),
    ("moment[]", &["{\"2026-11-22 16:51:38.5+00\",infinity,NULL}", "{}"]),
    ("key_id[]", &["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}"]),
    ("moments", &["{\"2026-11-22 16:51:38.5+00\",NULL}", "{{infinity},{-infinity}}"]),
    ("hstore", &["", "a=>1, b=>NULL, \"c d\"=>\"e\\\"f\""]),
    ("hstore[]", &["{\"\\\"a\\\"=>\\\"1\\\"\"}"]),
    ("citext", &["MiXed", ""]),
    ("ltree", &["Top.Science.Astronomy"]),
    ("cube", &["(1, 2, 3)"]),
    ("vector(3)", &["[1,2.5,-3]"]),
];

const PREPARATION: &str = "
    create type mood as enum ('happy', 'so-so', 'it''s \"sad\"');
    create domain positive as int check (value > 0);
    create domain email as text;
    create type address as (street text, number int, tags text[]);
    create domain moment as timestamptz;
    create domain late_moment as moment check (value > '-infinity' or value = '-infinity');
    create domain moments as moment[];
    create domain key_id as uuid;
    create domain birthday as date;
    create domain blob as bytea;
    create type stamp as (at timestamptz, id uuid, raw bytea, day date, n numeric);
    create type visit as (seen stamp, times moment[], closes time, local timestamp);
    create type place as (home address, at point, feels mood);";

/// The extensions of this server whose types are in the matrix.
async fn create_extensions(database: &Database) -> Vec<String> {
    let available = "select name from pg_available_extensions where name in ('hstore', 'citext', 'ltree', 'cube', 'vector')";
    let names = database.rows(available).await.into_iter().flatten().flatten();
    let mut made = vec![];
    for name in names {
        // An extension may be listed although its library is missing.
        let session = database.open_session().await;
        if session.try_sql(&format!("create extension if not exists {name}")).await.is_ok() {
            made.push(name);
        }
    }
    made
}

/// The columns of the matrix that this server supports: some lack a type, or XML.
async fn supported_columns(
    database: &Database,
) -> Vec<(String, &'static str, &'static [&'static str])> {
    let session = database.open_session().await;
    let mut found = vec![];
    for (index, (ty, literals)) in MATRIX.iter().enumerate() {
        match session.try_sql(&format!("select {}", literal(literals[0], ty))).await {
            Ok(()) => found.push((format!("c{index}"), *ty, *literals)),
            Err(error) => eprintln!("not here, not tested: {ty}: {error:?}"),
        }
    }
    found
}

fn literal(text: &str, ty: &str) -> String {
    format!("'{}'::{ty}", text.replace('\'', "''"))
}

/// Inserts the matrix under ids from `first` on. Row `n` has the n-th literal of each type; the
/// last row is all NULL.
async fn insert_matrix(site: &Site, columns: &[(String, &str, &[&str])], first: usize) {
    let longest = columns.iter().map(|(_, _, literals)| literals.len()).max().unwrap();
    for row in 0..=longest {
        let value = |(_, ty, literals): &(String, &str, &[&str])| match literals.get(row) {
            Some(text) => literal(text, ty),
            None => "null".to_owned(),
        };
        let names: Vec<_> = columns.iter().map(|(name, _, _)| name.as_str()).collect();
        let values: Vec<_> = columns.iter().map(value).collect();
        let names = names.join(", ");
        let values = values.join(", ");
        site.sql(&format!("insert into matrix (id, {names}) values ({}, {values})", first + row))
            .await;
    }
}

/// Creates the whole matrix as `public.matrix`.
pub async fn create_matrix(site: &Site) {
    create_extensions(&site.database).await;
    site.sql(PREPARATION).await;
    let columns = supported_columns(&site.database).await;
    let list: Vec<_> = columns.iter().map(|(name, ty, _)| format!("{name} {ty}")).collect();
    site.sql(&format!("create table matrix (id int primary key, {})", list.join(", "))).await;
    insert_matrix(site, &columns, 0).await;
}

on_each_postgres! {
    async fn every_type_round_trips(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        create_extensions(&site.database).await;
        site.sql(PREPARATION).await;
        let columns = supported_columns(&site.database).await;
        let list: Vec<_> = columns.iter().map(|(name, ty, _)| format!("{name} {ty}")).collect();
        site.sql(&format!("create table matrix (id int primary key, {})", list.join(", "))).await;

        let _gateway = site.gateway(&["public.matrix"]).start().await;
        insert_matrix(&site, &columns, 0).await;
        let sqlite = site.sqlite_replica(&["public.matrix"]);
        let postgres = site.postgres_replica(&copy, &["public.matrix"]);
        site.wait_until_equal(&sqlite, "public.matrix").await;
        site.wait_until_equal(&postgres, "public.matrix").await;

        insert_matrix(&site, &columns, 1000).await;
        site.wait_until_equal(&sqlite, "public.matrix").await;
        site.wait_until_equal(&postgres, "public.matrix").await;

        // Every column changes to another value or to NULL. Then every second row is set to NULL.
        let all = columns.iter().map(|(name, _, _)| format!("{name} = other.{name}")).collect::<Vec<_>>().join(", ");
        site.sql(&format!("update matrix set {all} from matrix other where other.id = (matrix.id + 1) % 1000 + 1000")).await;
        site.sql("delete from matrix where id % 2 = 1 and id > 1000").await;
        site.wait_until_equal(&sqlite, "public.matrix").await;
        site.wait_until_equal(&postgres, "public.matrix").await;
    }

    /// With replica identity FULL old rows are sent whole, so consumers look up rows by every type.
    async fn every_type_identifies_a_row(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        create_extensions(&site.database).await;
        site.sql(PREPARATION).await;
        let columns = supported_columns(&site.database).await;
        let list: Vec<_> = columns.iter().map(|(name, ty, _)| format!("{name} {ty}")).collect();
        site.sql(&format!(
            "create table matrix (id int, {}); alter table matrix replica identity full", list.join(", ")
        )).await;
        let _gateway = site.gateway(&["public.matrix"]).start().await;
        let sqlite = site.sqlite_replica(&["public.matrix"]);
        let postgres = site.postgres_replica(&copy, &["public.matrix"]);
        insert_matrix(&site, &columns, 0).await;
        insert_matrix(&site, &columns, 0).await;
        site.wait_until_equal(&sqlite, "public.matrix").await;
        site.sql("update matrix set id = id + 100 where ctid in (select min(ctid) from matrix group by id having id % 3 = 0)").await;
        site.sql("delete from matrix where ctid in (select min(ctid) from matrix group by id having id % 2 = 0)").await;
        site.wait_until_equal(&sqlite, "public.matrix").await;
        site.wait_until_equal(&postgres, "public.matrix").await;
    }
}
