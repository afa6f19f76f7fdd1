//! The pipeline of a batch: missing values → render → guest → dead letters → pack → compress.
//!
//! Changes, snapshots, the trial of a new guest, `verify` and the guest tools use it.
//! [`PipelineIo`] is what it needs of servers. Where batches come from, and where bodies go, is not
//! known here.

use std::{future::Future, sync::Arc};

use walgate_wire::ChunkWriter;

use crate::{
    config::CompressionConfig,
    egress::{
        compress::{BodyError, BodyPacker, Effort, PackedBody, StoredDictionary},
        outlet::Outlet,
    },
    encode::RowError,
    guest::{GuestFailure, GuestOutcome},
    rows::{Rendered, TableVersion, batch::RowBatch},
};

/// What a pipeline needs of Postgres and of the stream.
pub trait PipelineIo: Send {
    type Error: From<RowError> + From<GuestFailure> + Send;

    /// Has Postgres print the values that `rendered` misses. They are of rows of `table`.
    fn render(
        &mut self,
        table: &TableVersion,
        rendered: &mut Rendered,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Looks up the unchanged TOAST values of `columns`. Copied rows have none.
    fn fill_missing_values(
        &mut self,
        _batch: &mut RowBatch,
        _columns: &[usize],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Counts a run of the guest, and stores the rows that it failed on as dead letters.
    fn record_guest_run(
        &mut self,
        _run: GuestRun<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }
}

/// A batch that went through its guest.
#[derive(Debug)]
pub struct GuestRun<'a> {
    /// The table behind the guest.
    pub output: &'a TableVersion,
    pub rows_in: u64,
    pub outcome: &'a GuestOutcome,
    pub rendered: &'a mut Rendered,
}

/// Takes batches of any table through their outlets; one for each task that does so.
#[derive(Debug)]
pub struct Pipeline<Io> {
    io: Io,
    /// Texts of the batch that is under way.
    rendered: Rendered,
    bodies: BodyPacker,
}

impl<Io: PipelineIo> Pipeline<Io> {
    pub fn new(io: Io, compression: &CompressionConfig) -> Self {
        Pipeline { io, rendered: Rendered::default(), bodies: BodyPacker::new(compression) }
    }

    /// For rows that are not published.
    pub fn uncompressed(io: Io) -> Self {
        Pipeline { io, rendered: Rendered::default(), bodies: BodyPacker::uncompressed() }
    }

    /// Rows as Postgres sent them in, published rows out; none of them may be left.
    pub async fn process(
        &mut self,
        outlet: &Outlet,
        mut batch: RowBatch,
    ) -> Result<RowBatch, Io::Error> {
        self.fetch_missing_values(outlet, &mut batch).await?;
        self.apply_guest(outlet, batch).await
    }

    /// Asks Postgres for what the rows alone do not hold.
    pub async fn fetch_missing_values(
        &mut self,
        outlet: &Outlet,
        batch: &mut RowBatch,
    ) -> Result<(), Io::Error> {
        let needed = outlet.columns_needing_values();
        if batch.lacks_values(needed) {
            self.io.fill_missing_values(batch, needed).await?;
        }
        self.rendered.clear();
        if outlet.renders() {
            outlet.collect_server_rendered(batch, &mut self.rendered)?;
        }
        if !self.rendered.is_complete() {
            self.io.render(&batch.table, &mut self.rendered).await?;
        }
        Ok(())
    }

    /// Keeps the rows that the guest accepts, and sets aside those that it fails on. Call
    /// `fetch_missing_values` first.
    pub async fn apply_guest(
        &mut self,
        outlet: &Outlet,
        batch: RowBatch,
    ) -> Result<RowBatch, Io::Error> {
        if !outlet.has_guest() {
            return Ok(batch);
        }
        let rows_in = batch.len() as u64;
        let rendered = &mut self.rendered;
        let outcome = tokio::task::block_in_place(|| outlet.apply_guest(batch, rendered))?;
        let run = GuestRun { output: outlet.output(), rows_in, outcome: &outcome, rendered };
        self.io.record_guest_run(run).await?;
        Ok(outcome.batch)
    }

    /// Whether the guest gets through some rows of its table. Call `fetch_missing_values` first.
    /// Blocks for as long as the guest takes.
    pub fn try_guest(&mut self, outlet: &Outlet, batch: RowBatch) -> Result<(), GuestFailure> {
        outlet.try_guest(batch, &mut self.rendered)
    }

    /// The body of a message with all changes of a batch that was [processed](Pipeline::process).
    pub fn pack_changes(
        &mut self,
        outlet: &Outlet,
        batch: &RowBatch,
        dictionary: Option<Arc<StoredDictionary>>,
        effort: Effort,
    ) -> Result<PackedBody, BodyError> {
        self.bodies.pack_changes(outlet.packer(), batch, &mut self.rendered, dictionary, effort)
    }

    /// Adds the rows of a batch that was [processed](Pipeline::process) to a chunk.
    pub fn add_to_chunk(
        &mut self,
        outlet: &Outlet,
        batch: &RowBatch,
        chunk: &mut ChunkWriter,
    ) -> Result<(), BodyError> {
        let rows = 0..batch.len();
        Ok(outlet.packer().pack_rows(batch, rows, chunk, &mut self.rendered)?)
    }

    /// The body of the chunk that was gathered; `raw` receives it uncompressed, for its digest.
    pub fn finish_chunk(
        &mut self,
        table: &TableVersion,
        chunk: &mut ChunkWriter,
        raw: &mut Vec<u8>,
        dictionary: Option<Arc<StoredDictionary>>,
    ) -> Result<PackedBody, BodyError> {
        self.bodies.finish_chunk(table, chunk, raw, dictionary)
    }

    /// Texts of the values of the batch that was processed last.
    pub fn rendered(&mut self) -> &mut Rendered {
        &mut self.rendered
    }
}
