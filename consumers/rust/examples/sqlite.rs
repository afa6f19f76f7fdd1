//! Keeps a copy of a table in a SQLite file: `sqlite nats://127.0.0.1:4222 public.users edge.db`

use walgate_consumer::{Consumer, Error, SqliteSink};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [nats, table, file] = &args[..] else { panic!("arguments: NATS_URL TABLE FILE") };
    let consumer = Consumer::builder()
        .nats(nats.as_str())
        .table(table)
        .sink(SqliteSink::new(file))
        .build()
        .await?;
    // Rows and position are committed together: the next start continues where this one ended.
    consumer.run(async { drop(tokio::signal::ctrl_c().await) }).await
}
