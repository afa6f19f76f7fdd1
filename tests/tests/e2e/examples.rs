//! The examples of the consumer library, run as programs against a real gateway.

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::{Value as Json, json};
use walgate_tests::{
    Database, Site, Target, eventually, on_newest_postgres,
    oracle::find_differences,
    program::{Program, find_built},
};

const TABLE: &str = "
    create table users (id int primary key, name text, note text);
    insert into users select i, 'user ' || i, repeat('note', i) from generate_series(1, 300) i";
/// An update that leaves a large value alone, a new key, a delete, an insert.
const CHANGES: &str = "
    update users set note = (select string_agg(md5(i::text), '') from generate_series(1, 2000) i)
        where id = 1;
    update users set name = 'renamed' where id = 1;
    update users set id = 1000 where id = 2;
    delete from users where id = 3;
    insert into users values (301, 'late', null)";

fn start_example(site: &Site, name: &str, args: &[&str]) -> Program {
    let program = PathBuf::from("examples").join(name);
    let program = find_built(program.to_str().unwrap());
    let nats = site.broker.url();
    let args: Vec<String> =
        [&[nats.as_str(), "users"], args].concat().into_iter().map(str::to_owned).collect();
    let log = site.folder().join(format!("example-{name}.log"));
    Program::spawn(name, &program, &args, &[], &log)
}

async fn wait_until_equal(site: &Site, target: &Target) {
    let what = format!("users in {target} is equal to the source");
    eventually(what, async || find_differences(&site.database, target, "users", "users").await)
        .await;
}

/// The JSON objects among the program's output.
fn printed_objects(program: &Program) -> Vec<Json> {
    program.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Operations with the row's id, as the changes above make them.
fn expected_operations() -> BTreeSet<(String, i64)> {
    let operations = [("update", 1), ("update", 1000), ("delete", 3), ("insert", 301)];
    operations.map(|(operation, id)| (operation.to_owned(), id)).into()
}

async fn wait_for_changes(program: &Program) {
    eventually("all changes are printed", async || {
        let objects = printed_objects(program);
        let changes = objects.iter().filter_map(|object| {
            let row = if object["op"] == json!("delete") { &object["old"] } else { &object["row"] };
            Some((object["op"].as_str()?.to_owned(), row["id"].as_i64()?))
        });
        let changes: BTreeSet<_> = changes.collect();
        let missing: Vec<_> = expected_operations().difference(&changes).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("without {missing:?}")) }
    })
    .await;
}

on_newest_postgres! {
    async fn sqlite_and_postgres_keep_equal_copies(server) {
        let site = Site::new(&server).await;
        site.sql(TABLE).await;
        let _gateway = site.gateway(&["users"]).start().await;
        let file = site.folder().join("example.db");
        let other = Database::create(&server).await;
        let targets = [Target::Sqlite(file.clone()), Target::database(&other)];
        let sqlite = start_example(&site, "sqlite", &[file.to_str().unwrap()]);
        let postgres = start_example(&site, "postgres", &[&other.url()]);
        for target in &targets {
            wait_until_equal(&site, target).await;
        }
        // It continues where it was.
        sqlite.kill9();
        site.sql(CHANGES).await;
        let _again = start_example(&site, "sqlite", &[file.to_str().unwrap()]);
        for target in &targets {
            wait_until_equal(&site, target).await;
        }
        assert!(postgres.log().contains("users: Live, 300 rows loaded"), "{}", postgres.log());
    }

    async fn own_sink_prints_rows_and_changes(server) {
        let site = Site::new(&server).await;
        site.sql(TABLE).await;
        let _gateway = site.gateway(&["users"]).start().await;
        let program = start_example(&site, "own_sink", &[]);
        eventually("all rows are printed", async || {
            let rows = printed_objects(&program).into_iter().filter(|object| object["op"].is_null());
            let ids: BTreeSet<i64> = rows.filter_map(|row| row["id"].as_i64()).collect();
            if ids == (1..=300).collect() { Ok(()) } else { Err(format!("{} rows", ids.len())) }
        })
        .await;
        site.sql(CHANGES).await;
        wait_for_changes(&program).await;
    }

    async fn tail_prints_changes(server) {
        let site = Site::new(&server).await;
        site.sql(TABLE).await;
        let _gateway = site.gateway(&["users"]).start().await;
        let program = start_example(&site, "tail", &[]);
        site.sql(CHANGES).await;
        wait_for_changes(&program).await;
    }
}
