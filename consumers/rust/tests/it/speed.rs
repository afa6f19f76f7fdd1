//! Throughput of the sinks. Run by hand: `cargo test --release -p walgate-consumer -- --ignored
//! --nocapture`

use std::{sync::Arc, time::Instant};

use walgate_consumer::{PostgresSink, Sink, SqliteSink, wire::Schema};
use walgate_servers::{PgOptions, PrivatePostgres, find_postgres};

use crate::rows::{Did, V, changes, checkpoint, chunk, record, s, schema};

/// An order as the demo's shop has it: about 140 bytes.
fn order(id: i64) -> Vec<V> {
    vec![
        V::Int(id),
        V::Int(id * 7919 % 100_000),
        s(["new", "paid", "shipped", "returned"][id as usize % 4]),
        s(&format!("{}.{:02}", id % 900, id % 100)),
        V::Int(1_795_366_298_123_456 + id * 1_000_003),
        s(&format!(
            "{{\"items\": {}, \"gift\": false, \"note\": \"leave at the door {id}\"}}",
            id % 9
        )),
        V::Bool(id % 3 == 0),
        V::Float(id as f64 * 0.37),
    ]
}

const ORDER: [&str; 8] = [
    "*id bigint",
    "user_id bigint",
    "status text",
    "total numeric",
    "at timestamp with time zone",
    "doc jsonb",
    "paid boolean",
    "weight double precision",
];

/// Processor time of this process so far, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .map(|f| f.parse().unwrap_or(0.0))
        .collect();
    (fields[11] + fields[12]) / 100.0
}

/// Rows per second of wall-clock time and of CPU time; the latter does not depend on other load.
struct Stopwatch {
    began: Instant,
    cpu: f64,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch { began: Instant::now(), cpu: cpu() }
    }

    fn stop(&self, rows: i64) -> String {
        let (wall, cpu) = (self.began.elapsed().as_secs_f64(), cpu() - self.cpu);
        format!("{:.0}/s ({:.0} a cpu second)", rows as f64 / wall, rows as f64 / cpu)
    }
}

async fn measure(
    name: &str,
    sink: &mut impl Sink,
    schema: &Arc<Schema>,
    key: impl Fn(i64) -> Vec<V>,
) {
    const ROWS: i64 = 600_000;
    let chunks: Vec<_> = (0..ROWS / 20_000)
        .map(|c| chunk(schema, &(c * 20_000..(c + 1) * 20_000).map(&key).collect::<Vec<_>>()))
        .collect();
    let watch = Stopwatch::start();
    sink.begin_load(schema.clone()).await.unwrap();
    for chunk in chunks {
        sink.load_rows(chunk).await.unwrap();
    }
    sink.finish_load(schema.clone(), vec![record(schema)], checkpoint(1)).await.unwrap();
    let snapshot = watch.stop(ROWS);

    const CHANGES: i64 = 300_000;
    let did = |i: i64| match i % 3 {
        0 => Did::Insert(key(ROWS + i)),
        1 => Did::Update { row: key(i * 7919 % ROWS), unchanged: vec![], old: None },
        _ => Did::Update { row: key(i * 7919 % ROWS), unchanged: vec![5], old: None },
    };
    let bodies: Vec<_> = (0..CHANGES / 1000)
        .map(|b| {
            let dids: Vec<Did> = (b * 1000..(b + 1) * 1000).map(did).collect();
            changes(schema, schema, &dids)
        })
        .collect();
    let watch = Stopwatch::start();
    for (body, seq) in bodies.into_iter().zip(2..) {
        sink.apply_changes(body).await.unwrap();
        if seq % 4 == 0 {
            sink.commit(checkpoint(seq)).await.unwrap();
        }
    }
    sink.commit(checkpoint(9999)).await.unwrap();
    let changes = watch.stop(CHANGES);

    let singles: Vec<_> = (0..20_000).map(|i| changes_of_one(schema, key(ROWS * 3 + i))).collect();
    let watch = Stopwatch::start();
    for (body, seq) in singles.into_iter().zip(10_000..) {
        sink.apply_changes(body).await.unwrap();
        sink.commit(checkpoint(seq)).await.unwrap();
    }
    let commits = watch.stop(20_000);
    println!("{name}: snapshot {snapshot}, changes {changes}, single-row commits {commits}");
}

fn changes_of_one(schema: &Arc<Schema>, row: Vec<V>) -> walgate_consumer::ChangeBatch {
    changes(schema, schema, &[Did::Insert(row)])
}

#[tokio::test]
#[ignore = "a measurement"]
async fn sqlite_speed() {
    let mut text_key = ORDER;
    text_key[0] = "*id text";
    let mut composite = ORDER;
    composite[1] = "*user_id bigint";
    type Make = fn(i64) -> Vec<V>;
    let shapes: [(&str, [&str; 8], Make); 3] = [
        ("sqlite, integer key", ORDER, order),
        ("sqlite, text key", text_key, |id| {
            let mut row = order(id);
            row[0] = s(&format!("{:016x}", (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            row
        }),
        ("sqlite, composite key", composite, order),
    ];
    for (name, columns, row) in shapes {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut sink = SqliteSink::new(dir.path().join("replica.db"));
        sink.open().await.unwrap();
        let schema = Arc::new(schema("public.orders", &columns, false));
        measure(name, &mut sink, &schema, row).await;
        sink.close().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn postgres_speed() {
    let server =
        PrivatePostgres::start(&find_postgres(None).unwrap().bin, PgOptions::default()).unwrap();
    let mut sink = PostgresSink::new(server.url("postgres"));
    sink.open().await.unwrap();
    let schema = Arc::new(schema("public.orders", &ORDER, false));
    measure("postgres", &mut sink, &schema, order).await;
    sink.close().await.unwrap();
}
