//! The wire format, read by libraries that share no code with ours.

use std::{fs, path::Path};

use serde_json::{Value as Json, json};
use walgate_tests::{
    Site, json as as_json, on_newest_postgres, python,
    stream::{self, Body, Opener},
    vectors::{self, Vector},
};
use walgate_wire::{Caps, ChunkDigest, DICT, decode_changes, decode_chunk, hex};

fn vectors_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors"))
}

fn assert_python_agrees(folder: &Path) {
    let Some(output) = python::script("decode_vectors.py", folder) else { return };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{errors}");
    println!("{stdout}");
}

#[test]
fn vectors_are_current() {
    let fresh = tempfile::tempdir().unwrap();
    vectors::write_all(fresh.path());
    let names = |folder: &Path| {
        // Vectors of guests have their own folder, which the SDK's tests read.
        let entries = fs::read_dir(folder).unwrap().flatten();
        let files = entries.filter(|entry| entry.path().is_file()).map(|entry| entry.file_name());
        let mut names: Vec<_> = files.filter(|name| name != "README.md").collect();
        names.sort();
        names
    };
    assert_eq!(
        names(fresh.path()),
        names(vectors_folder()),
        "run `cargo xtask vectors` and read the difference"
    );
    for name in names(fresh.path()) {
        let (new, old) = (
            fs::read(fresh.path().join(&name)).unwrap(),
            fs::read(vectors_folder().join(&name)).unwrap(),
        );
        assert!(
            new == old,
            "{name:?} is not what the wire crate writes now: run `cargo xtask vectors` and read the difference"
        );
    }
}

#[test]
fn python_reads_the_vectors() {
    assert_python_agrees(vectors_folder());
}

/// A message of a real gateway as a vector.
async fn capture_vector(
    name: String,
    kind: &'static str,
    body: &Body,
    opener: &mut Opener,
    folder: &Path,
) -> Vector {
    let opened = opener.open(body).await;
    let mut columns = None;
    let mut dictionary = None;
    if let Some(revision) = body.headers.get(walgate_wire::SCHEMA) {
        columns = Some(opener.schema(revision.as_str().parse().unwrap()).await.columns.len());
    }
    if let Some(named) = body.headers.get(DICT) {
        let file = named.as_str().replace('@', "_");
        fs::write(
            folder.join(format!("{file}.bin")),
            opener.dictionary(named.as_str()).await.bytes(),
        )
        .unwrap();
        dictionary = Some(file);
    }
    let caps = Caps::default();
    let expected: Json = match kind {
        "changes" => decode_changes(&opened, columns.unwrap(), &caps)
            .unwrap()
            .iter()
            .map(as_json::change)
            .collect(),
        "chunk" => {
            let rows = as_json::chunk(decode_chunk(&opened, columns.unwrap(), &caps).unwrap());
            json!({ "rows": rows, "sha256": hex::encode(&ChunkDigest::of(&opened)) })
        }
        _ => walgate_wire::from_msgpack(&opened).unwrap(),
    };
    let parts = vec![body.sent.clone()];
    Vector {
        name,
        kind,
        headers: vectors::headers(&body.headers),
        parts,
        columns,
        dictionary,
        expected,
    }
}

on_newest_postgres! {
    async fn python_reads_what_a_gateway_sends(server) {
        let site = Site::new(&server).await;
        site.sql(
            "create type address as (street text, number int);
             create table t (id int primary key, a text, b numeric, c timestamptz, d jsonb, e text[], f bytea, g uuid, h double precision, i address, j inet);
             alter table t alter a set storage external;
             insert into t select i, repeat('seed ' || i, 5), i / 7.0, now(), jsonb_build_object('n', i), array['x', null], '\\x00', gen_random_uuid(), i / 3.0, row('s'::text, i)::address, '::1' from generate_series(1, 500) i",
        )
        .await;
        fs::write(site.dictionaries().join("t.zstd.dict"), vectors::dictionary().bytes()).unwrap();
        let _gateway = site.gateway(&["t"]).start().await;
        site.take_snapshot("t").await;
        site.sql("update t set a = repeat('long ', 1000), h = 'NaN' where id < 10; update t set b = 'NaN', c = 'infinity' where id < 5; update t set id = -id where id < 3; delete from t where id > 490").await;
        site.sql("insert into t (id, f) values (1000, (select string_agg(decode(md5(random()::text), 'hex'), '') from generate_series(1, 150000))); truncate t").await;
        let lsn = site.database.value("select pg_current_wal_lsn()").await.parse().unwrap();
        site.sql("insert into t (id) values (1)").await;
        stream::wait_for_commit(&site.broker, lsn).await;

        let folder = tempfile::tempdir().unwrap();
        let mut opener = Opener::new(&site.broker).await;
        let mut kinds = vec![];
        for stream_name in ["CDC", "INIT", "KV_schemas"] {
            for body in stream::join_bodies(stream::read_messages(&site.broker, stream_name).await) {
                let kind = match body.subject.split('.').take(2).collect::<Vec<_>>()[..] {
                    ["cdc", "=progress"] => "control",
                    ["cdc", _] => "changes",
                    ["init", "snap"] => "chunk",
                    _ => "control",
                };
                let name = format!("{stream_name}_{}", body.sequence);
                capture_vector(name, kind, &body, &mut opener, folder.path()).await.write(folder.path());
                kinds.push(kind);
            }
        }
        assert!(["control", "changes", "chunk"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
        assert_python_agrees(folder.path());
    }
}
