//! `walgate nats`: tools for administrators of the NATS server. They do not need Postgres.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use crate::commands::Usage;
use walgate_host::{
    config::Config,
    jetstream::{permissions, streams::Streams},
};

/// The permissions and streams that NATS needs.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the permissions of gateway, consumers and operators for nats-server's configuration
    ///
    /// Each is a variable. Put them where users are defined and write `permissions:
    /// $walgate_gateway`, for example. The server refuses a variable that no user has: leave it
    /// out. docs/NATS.md has an example.
    Permissions(PermissionsArgs),
    /// Create the streams and buckets, or correct their limits and settings that would lose data,
    /// and end
    ///
    /// For gateways with nats.create = false. Connects as configured. Set WALGATE_NATS_CREDS_FILE
    /// or similar variables to connect as a user with the right to do this.
    Setup(SetupArgs),
}

#[derive(Debug, clap::Args)]
struct PermissionsArgs {
    /// The gateway's configuration [default: walgate.toml if there is one]
    #[arg(short, long, env = "WALGATE_CONFIG")]
    config: Option<PathBuf>,
    /// A consumer in the gateway's account, which then uses --nats-inbox-prefix _INBOX_NAME; may be
    /// repeated
    #[arg(long = "consumer", value_name = "NAME", default_value = "consumer")]
    consumers: Vec<String>,
    /// Consumers have their own accounts: print the exports of WALGATE, the gateway's account, and
    /// their imports
    #[arg(long, conflicts_with = "consumers")]
    accounts: bool,
}

#[derive(Debug, clap::Args)]
struct SetupArgs {
    /// The gateway's configuration [default: walgate.toml if there is one]
    #[arg(short, long, env = "WALGATE_CONFIG")]
    config: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Permissions(PermissionsArgs { config, accounts: true, .. }) => {
            print!("{}", permissions::several_accounts(&Config::load(config)?));
        }
        Command::Permissions(PermissionsArgs { config, consumers, .. }) => {
            print!("{}", permissions::one_account(&Config::load(config)?, &consumers));
        }
        Command::Setup(SetupArgs { config }) => {
            let Config { mut nats, tables, .. } = Config::load(config)?;
            let Some(access) = &nats.access else {
                let what = "nats.url is not set: a private server is set up by the gateway itself";
                return Err(Usage(what.to_owned()).into());
            };
            nats.create = true;
            Streams::connect(access, &nats, &tables).await?;
            println!("the streams and buckets are there");
        }
    }
    Ok(ExitCode::SUCCESS)
}
