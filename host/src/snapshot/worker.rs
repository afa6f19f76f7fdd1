//! One of the connections that copy a table: pieces → batches → chunks → stream.

use std::sync::Arc;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::task::{JoinError, JoinHandle};
use walgate_wire::{ChunkDigest, ChunkWriter};

use super::job::SnapshotJob;
use crate::{
    egress::{compress::PackedBody, pipeline::Pipeline},
    error::SessionError,
    jetstream::publisher::{Outgoing, PublishFailed},
    pipeline_io::GatewayIo,
    postgres::snapshot::SnapshotReader,
    rows::batch::RowBatch,
};

/// Raw rows that are packed at a time.
const BATCH_BYTES: usize = 256 << 10;
/// A frame of about this size fits one message of a server's usual 1 MiB with its headers.
const FRAME_BYTES: usize = 850 << 10;
/// The size of the first chunk, before the compression ratio is known.
const FIRST_CHUNK_BYTES: usize = 1 << 20;
/// Unacknowledged chunks of one worker while it builds the next.
pub(super) const CHUNKS_IN_FLIGHT_MAX: usize = 2;

pub(super) struct CopyWorker {
    job: Arc<SnapshotJob>,
    writer: ChunkWriter,
    pipeline: Pipeline<GatewayIo>,
    raw: Vec<u8>,
    chunk_bytes: usize,
    in_flight: FuturesUnordered<JoinHandle<Result<u64, PublishFailed>>>,
}

impl CopyWorker {
    pub(super) fn new(job: Arc<SnapshotJob>) -> CopyWorker {
        let config = &job.gateway.config;
        let io = GatewayIo::of_copied_rows(job.gateway.clone());
        CopyWorker {
            writer: job.outlet.packer().chunk_writer(),
            chunk_bytes: FIRST_CHUNK_BYTES.min(config.snapshot.chunk_bytes),
            pipeline: Pipeline::new(io, &config.compression),
            job,
            raw: Vec::new(),
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Copies pieces until there are none left; returns the reader.
    pub(super) async fn run(
        mut self,
        mut reader: SnapshotReader,
    ) -> Result<SnapshotReader, SessionError> {
        let job = Arc::clone(&self.job);
        let mut batch = RowBatch::new(Arc::clone(&job.table));
        while let Some(piece) = job.next_piece() {
            let mut rows = reader.copy(&job.table, &piece, job.row_filter.as_deref()).await?;
            let mut more = true;
            while more {
                let slot = job.gateway.wal_pressure.acquire_background_slot().await;
                batch.clear(Arc::clone(&job.table));
                more = rows.fill_batch(&mut batch, BATCH_BYTES).await?;
                batch = self.add_to_chunk(batch).await?;
                if slot.is_some() {
                    self.wait_for_acks().await?;
                }
            }
        }
        if self.writer.rows() > 0 {
            self.publish_chunk().await?;
        }
        self.wait_for_acks().await?;
        Ok(reader)
    }

    async fn wait_for_acks(&mut self) -> Result<(), SessionError> {
        while let Some(published) = self.in_flight.next().await {
            check_published(published)?;
        }
        Ok(())
    }

    /// Adds the published rows of the batch to the chunk; returns the buffers.
    async fn add_to_chunk(&mut self, batch: RowBatch) -> Result<RowBatch, SessionError> {
        let job = Arc::clone(&self.job);
        let batch = self.pipeline.process(&job.outlet, batch).await?;
        self.pipeline.add_to_chunk(&job.outlet, &batch, &mut self.writer)?;
        if self.writer.raw_bytes() >= self.chunk_bytes {
            self.publish_chunk().await?;
        }
        Ok(batch)
    }

    /// Finishes the current chunk and sends it.
    async fn publish_chunk(&mut self) -> Result<(), SessionError> {
        let rows = self.writer.rows() as u64;
        let dictionary = self.job.dictionary.clone();
        let job = Arc::clone(&self.job);
        let packed =
            self.pipeline.finish_chunk(&job.table, &mut self.writer, &mut self.raw, dictionary)?;
        self.chunk_bytes = next_chunk_bytes(&packed, self.job.gateway.config.snapshot.chunk_bytes);
        let number = self.add_to_totals(rows, &packed);
        let (subject, mut headers) = self.job.chunk_message(number);
        packed.set_headers(|name, value| headers.insert(name, value));
        let message = Outgoing { subject, headers, body: packed.body, confirms: None };
        if self.in_flight.len() >= CHUNKS_IN_FLIGHT_MAX
            && let Some(published) = self.in_flight.next().await
        {
            check_published(published)?;
        }
        let publisher = job.gateway.streams.publisher().clone();
        let permit = Arc::clone(&job.publishing).acquire_owned().await;
        // The task continues if the worker fails or is stopped: the job waits for its permit.
        self.in_flight.push(tokio::spawn(async move {
            let _permit = permit;
            publisher.publish_acknowledged(message).await
        }));
        Ok(())
    }

    /// Adds the chunk to the totals; returns its number.
    fn add_to_totals(&self, rows: u64, packed: &PackedBody) -> u64 {
        let digest = ChunkDigest::of(&self.raw);
        let (raw_bytes, bytes) = (packed.raw_bytes as u64, packed.body.len() as u64);
        self.job.gateway.status.table(&self.job.token).add_snapshot_rows(rows, raw_bytes, bytes);
        let mut totals = self.job.totals();
        let number = totals.chunks;
        totals.chunks += 1;
        totals.rows += rows;
        totals.raw_bytes += raw_bytes;
        totals.bytes += bytes;
        totals.digest.add(number, digest);
        number
    }
}

/// The size at which a chunk fits one message by the last compression ratio, within the configured
/// limit.
fn next_chunk_bytes(packed: &PackedBody, configured: usize) -> usize {
    let fitting = packed.raw_bytes.saturating_mul(FRAME_BYTES) / packed.body.len().max(1);
    fitting.clamp(64 << 10, configured)
}

fn check_published(
    published: Result<Result<u64, PublishFailed>, JoinError>,
) -> Result<(), SessionError> {
    published.map_err(|e| SessionError::Task(format!("a chunk was not published: {e}")))??;
    Ok(())
}
