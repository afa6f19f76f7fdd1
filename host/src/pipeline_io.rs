//! What the pipeline of a running gateway needs: Postgres for values, the stream for dead letters.
//!
//! What becomes of a batch is decided in `egress`.

use walgate_wire::{Epoch, MSG_ID};

use crate::{
    clock::now_micros,
    context::Gateway,
    egress::{
        dead_letters::{self, DeadLetterError},
        pipeline::{GuestRun, PipelineIo},
    },
    error::SessionError,
    jetstream::publisher::{Headers, Outgoing},
    postgres::{server_render::Renderer, toast_lookup::ToastLookup},
    rows::{Rendered, TableVersion, batch::RowBatch},
};

/// The connections of one task.
pub struct GatewayIo {
    gateway: Gateway,
    /// That of changes.
    epoch: Option<Epoch>,
    /// Opened when a value needs it.
    renderer: Option<Renderer>,
    lookup: Option<ToastLookup>,
}

impl GatewayIo {
    pub fn of_changes(
        gateway: Gateway,
        epoch: Epoch,
        renderer: Renderer,
        lookup: ToastLookup,
    ) -> Self {
        let (renderer, lookup) = (Some(renderer), Some(lookup));
        GatewayIo { gateway, epoch: Some(epoch), renderer, lookup }
    }

    /// Copied rows are complete: nothing is looked up.
    pub fn of_copied_rows(gateway: Gateway) -> Self {
        GatewayIo { gateway, epoch: None, renderer: None, lookup: None }
    }
}

impl PipelineIo for GatewayIo {
    type Error = SessionError;

    async fn render(
        &mut self,
        table: &TableVersion,
        rendered: &mut Rendered,
    ) -> Result<(), SessionError> {
        let renderer = match self.renderer.take() {
            Some(renderer) => renderer,
            None => Renderer::connect(&self.gateway.config.postgres).await?,
        };
        let renderer = self.renderer.insert(renderer);
        Ok(renderer.render(&table.name.to_string(), rendered).await?)
    }

    async fn fill_missing_values(
        &mut self,
        batch: &mut RowBatch,
        columns: &[usize],
    ) -> Result<(), SessionError> {
        let Some(lookup) = &mut self.lookup else { return Ok(()) };
        Ok(lookup.fill_unchanged(batch, columns).await?)
    }

    async fn record_guest_run(&mut self, run: GuestRun<'_>) -> Result<(), SessionError> {
        let GuestRun { output, rows_in, outcome, rendered } = run;
        let status = self.gateway.status.table(&output.token);
        status.add_guest(output.schema.guest.as_ref(), rows_in, outcome);
        for failed in &outcome.failed {
            let at_micros = now_micros();
            let letter = dead_letters::compose(self.epoch, output, failed, rendered, at_micros)?;
            let Some(letter) = letter else { continue };
            let mut headers = Headers::new();
            if let Some(id) = letter.message_id {
                headers.insert(MSG_ID, id);
            }
            let (subject, body) = (letter.subject, letter.body.into());
            let message = Outgoing { subject, headers, body, confirms: None };
            self.gateway.streams.publisher().publish_acknowledged(message).await?;
        }
        Ok(())
    }
}

impl From<DeadLetterError> for SessionError {
    fn from(error: DeadLetterError) -> Self {
        match error {
            DeadLetterError::Row(error) => error.into(),
            DeadLetterError::Encode(what) => SessionError::Task(what),
        }
    }
}
