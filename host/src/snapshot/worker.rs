//! One of the connections that copy a table: pieces → batches → chunks → stream.

use std::sync::Arc;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::task::{JoinError, JoinHandle};
use walgate_wire::{ChunkDigest, ChunkWriter};

use crate::snapshot::job::Plan;
use crate::{
    egress::{compress::PackedBody, pipeline::Pipeline},
    error::SessionError,
    jetstream::publisher::{Outgoing, PublishFailed, publish_acknowledged},
    pipeline_io::GatewayIo,
    postgres::snapshot::SnapshotReader,
    rows::batch::RowBatch,
};

/// Raw rows that are packed at a time.
const BATCH_BYTES: usize = 256 << 10;
/// A frame of about this size fits one message of a server's usual 1 MiB with its headers.
const FRAME_BYTES: usize = 850 << 10;
/// What a chunk holds before it is known how well the rows compress.
const FIRST_CHUNK_BYTES: usize = 1 << 20;
/// Chunks of one worker whose acknowledgement is awaited while the next is made.
pub(super) const CHUNKS_IN_FLIGHT_MAX: usize = 2;

pub(super) struct Worker {
    plan: Arc<Plan>,
    writer: ChunkWriter,
    pipeline: Pipeline<GatewayIo>,
    raw: Vec<u8>,
    chunk_bytes: usize,
    in_flight: FuturesUnordered<JoinHandle<Result<u64, PublishFailed>>>,
}

impl Worker {
    pub(super) fn new(plan: Arc<Plan>) -> Worker {
        let config = &plan.gateway.config;
        let io = GatewayIo::of_copied_rows(plan.gateway.clone());
        Worker {
            writer: plan.outlet.packer().chunk_writer(),
            chunk_bytes: FIRST_CHUNK_BYTES.min(config.snapshot.chunk_bytes),
            pipeline: Pipeline::new(io, &config.compression),
            plan,
            raw: Vec::new(),
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Copies pieces until there are no more; gives the reader back.
    pub(super) async fn run(
        mut self,
        mut reader: SnapshotReader,
    ) -> Result<SnapshotReader, SessionError> {
        let plan = Arc::clone(&self.plan);
        let mut batch = RowBatch::new(Arc::clone(&plan.table));
        while let Some(piece) = plan.next_piece() {
            let mut rows = reader.copy(&plan.table, &piece, plan.row_filter.as_deref()).await?;
            let mut more = true;
            while more {
                let turn = plan.gateway.relief.turn().await;
                batch.clear(Arc::clone(&plan.table));
                more = rows.fill_batch(&mut batch, BATCH_BYTES).await?;
                batch = self.add_to_chunk(batch).await?;
                if turn.is_some() {
                    self.all_acknowledged().await?;
                }
            }
        }
        if self.writer.rows() > 0 {
            self.publish_chunk().await?;
        }
        self.all_acknowledged().await?;
        Ok(reader)
    }

    async fn all_acknowledged(&mut self) -> Result<(), SessionError> {
        while let Some(published) = self.in_flight.next().await {
            acknowledged(published)?;
        }
        Ok(())
    }

    /// Adds the published rows of the batch to the chunk; gives the buffers back.
    async fn add_to_chunk(&mut self, batch: RowBatch) -> Result<RowBatch, SessionError> {
        let plan = Arc::clone(&self.plan);
        let batch = self.pipeline.process(&plan.outlet, batch).await?;
        self.pipeline.add_to_chunk(&plan.outlet, &batch, &mut self.writer)?;
        if self.writer.raw_bytes() >= self.chunk_bytes {
            self.publish_chunk().await?;
        }
        Ok(batch)
    }

    /// Ends the chunk that is being gathered and sends it.
    async fn publish_chunk(&mut self) -> Result<(), SessionError> {
        let rows = self.writer.rows() as u64;
        let dictionary = self.plan.dictionary.clone();
        let plan = Arc::clone(&self.plan);
        let packed =
            self.pipeline.finish_chunk(&plan.table, &mut self.writer, &mut self.raw, dictionary)?;
        self.chunk_bytes = next_chunk_bytes(&packed, self.plan.gateway.config.snapshot.chunk_bytes);
        let number = self.count(rows, &packed);
        let (subject, mut headers) = self.plan.chunk_message(number);
        packed.set_headers(|name, value| headers.insert(name, value));
        let message = Outgoing { subject, headers, body: packed.body, confirms: None };
        if self.in_flight.len() >= CHUNKS_IN_FLIGHT_MAX
            && let Some(published) = self.in_flight.next().await
        {
            acknowledged(published)?;
        }
        let context = plan.gateway.streams.context.clone();
        let permit = Arc::clone(&plan.publishing).acquire_owned().await;
        // It goes on, and is waited for, also where the worker fails or is stopped.
        self.in_flight.push(tokio::spawn(async move {
            let _permit = permit;
            publish_acknowledged(&context, message).await
        }));
        Ok(())
    }

    /// Adds the chunk to the totals and gives it its number.
    fn count(&self, rows: u64, packed: &PackedBody) -> u64 {
        let digest = ChunkDigest::of(&self.raw);
        let (raw_bytes, bytes) = (packed.raw_bytes as u64, packed.body.len() as u64);
        self.plan.gateway.status.table(&self.plan.token).add_snapshot_rows(rows, raw_bytes, bytes);
        let mut totals = self.plan.totals();
        let number = totals.chunks;
        totals.chunks += 1;
        totals.rows += rows;
        totals.raw_bytes += raw_bytes;
        totals.bytes += bytes;
        totals.digest.add(number, digest);
        number
    }
}

/// As large as the last chunk's compression lets fit one message, within what is configured.
fn next_chunk_bytes(packed: &PackedBody, configured: usize) -> usize {
    let fitting = packed.raw_bytes.saturating_mul(FRAME_BYTES) / packed.body.len().max(1);
    fitting.clamp(64 << 10, configured)
}

fn acknowledged(
    published: Result<Result<u64, PublishFailed>, JoinError>,
) -> Result<(), SessionError> {
    published.map_err(|e| SessionError::Task(format!("a chunk was not published: {e}")))??;
    Ok(())
}
