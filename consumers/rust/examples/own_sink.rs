//! A sink that prints rows and changes as JSON lines: `own_sink nats://127.0.0.1:4222 public.users`
//! It stores no state, so every start loads the table again.

use std::sync::Arc;
use walgate_consumer::{
    ChangeBatch, Checkpoint, Consumer, Error, MigrationStep, Sink, SinkError, SnapshotRows,
    StoredState, TableRecord, change_json, row_json,
    wire::{Schema, Token},
};

type Done = Result<(), SinkError>;

struct JsonLines;

impl Sink for JsonLines {
    async fn open(&mut self) -> Result<StoredState, SinkError> {
        Ok(StoredState::default())
    }
    async fn load_rows(&mut self, rows: SnapshotRows) -> Done {
        let chunk = rows.decode().map_err(|error| SinkError::new("a chunk", error))?;
        chunk.into_rows().for_each(|row| println!("{}", row_json(&rows.schema, &row)));
        Ok(())
    }
    async fn apply_changes(&mut self, batch: ChangeBatch) -> Done {
        let changes = batch.decode().map_err(|error| SinkError::new("changes", error))?;
        changes.iter().for_each(|change| println!("{}", change_json(&batch.schema, change)));
        Ok(())
    }
    async fn begin_load(&mut self, _: Arc<Schema>) -> Done {
        Ok(())
    }
    async fn finish_load(&mut self, _: Arc<Schema>, _: Vec<TableRecord>, _: Checkpoint) -> Done {
        Ok(())
    }
    async fn migrate_table(&mut self, _: TableRecord, _: Vec<MigrationStep>) -> Done {
        Ok(())
    }
    async fn save_records(&mut self, _: Vec<TableRecord>) -> Done {
        Ok(())
    }
    async fn forget_table(&mut self, _: Token) -> Done {
        Ok(())
    }
    async fn commit(&mut self, _: Checkpoint) -> Done {
        Ok(())
    }
    async fn rollback(&mut self) -> Done {
        Ok(())
    }
    async fn close(&mut self) -> Done {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [nats, table] = &args[..] else { panic!("arguments: NATS_URL TABLE") };
    let builder = Consumer::builder().nats(nats.as_str()).table(table).sink(JsonLines);
    builder.build().await?.run(async { drop(tokio::signal::ctrl_c().await) }).await
}
