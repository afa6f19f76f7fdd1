//! Keeps a copy of a table in a Postgres database, and prints its status at each change of phase:
//! `postgres nats://127.0.0.1:4222 public.users postgres://edge@localhost/edge`

use walgate_consumer::{Consumer, Error, PostgresSink};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [nats, table, target] = &args[..] else { panic!("arguments: NATS_URL TABLE TARGET_URL") };
    let consumer = Consumer::builder()
        .nats(nats.as_str())
        .table(table)
        .sink(PostgresSink::new(target))
        .build()
        .await?;
    let mut status = consumer.status();
    tokio::spawn(async move {
        let mut phase = None;
        while status.changed().await.is_ok() {
            for (token, table) in &status.borrow_and_update().tables {
                if phase.replace(table.phase) != Some(table.phase) {
                    println!("{token}: {:?}, {} rows loaded", table.phase, table.snapshot_rows);
                }
            }
        }
    });
    consumer.run(async { drop(tokio::signal::ctrl_c().await) }).await
}
