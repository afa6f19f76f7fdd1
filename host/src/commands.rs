//! What `walgate` does beside running the gateway: one file a command, each with its arguments and its `run`.
//!
//! Commands stand at the consumers' side: what they know of NATS they know through `walgate_consumer`.

use std::io;

use anyhow::Context;

pub mod demo;
pub mod dlq;
pub mod guest;
pub mod init_sql;
mod live;
pub mod log;
pub mod replicate;
pub mod snapshot;
pub mod tail;
pub mod target;
pub mod train;
pub mod verify;

/// Where NATS is, for every command that needs it.
#[derive(Debug, clap::Args)]
pub struct NatsArgs {
    /// NATS server, nats://user:password@host:4222, several separated by commas; NATS_URL is read, too [default:
    /// nats://127.0.0.1:4222]
    #[arg(long = "nats", value_name = "URL", env = "WALGATE_NATS_URL", hide_env_values = true)]
    url: Option<String>,
    /// What other NATS tools read.
    #[arg(long, value_name = "URL", env = "NATS_URL", hide_env_values = true, hide = true)]
    nats_url: Option<String>,
}

impl NatsArgs {
    pub fn url(&self) -> &str {
        self.url.as_deref().or(self.nats_url.as_deref()).unwrap_or("nats://127.0.0.1:4222")
    }
}

/// Whether somebody still reads standard output, after this was written to it.
fn still_read(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.context("writing to standard output").map(|()| true),
    }
}

/// What the gateway calls its streams, where an operator changed that.
#[derive(Debug, clap::Args)]
pub struct StreamArgs {
    /// Stream that holds changes
    #[arg(
        long,
        value_name = "NAME",
        env = "WALGATE_NATS_CDC_STREAM",
        default_value = "CDC",
        hide_default_value = true,
        hide_env = true
    )]
    cdc_stream: String,
    /// Stream that holds snapshots
    #[arg(
        long,
        value_name = "NAME",
        env = "WALGATE_NATS_INIT_STREAM",
        default_value = "INIT",
        hide_default_value = true,
        hide_env = true
    )]
    init_stream: String,
}

impl StreamArgs {
    pub fn names(&self) -> walgate_consumer::StreamNames {
        walgate_consumer::StreamNames {
            cdc: self.cdc_stream.clone(),
            init: self.init_stream.clone(),
        }
    }
}
