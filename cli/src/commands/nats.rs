//! `walgate nats`: what an administrator of the NATS server needs. Nothing of it needs Postgres.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use crate::commands::Usage;
use walgate_host::{
    config::Config,
    jetstream::{permissions, streams},
};

/// What NATS has to allow, and the streams that have to be there.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the permissions of gateway, consumers and operators for nats-server's configuration
    ///
    /// Each is a variable: put them where users are defined and write `permissions: $walgate_gateway`, say. A variable that
    /// no user has is refused by the server: leave it out. docs/NATS.md has an example.
    Permissions(PermissionsArgs),
    /// Create the streams and buckets, or change their limits to those of the configuration and what would lose data, and end
    ///
    /// For gateways with nats.create = false. Connects as the configuration says; set WALGATE_NATS_CREDS_FILE and others
    /// to come as somebody who may do this.
    Setup(SetupArgs),
}

#[derive(Debug, clap::Args)]
struct PermissionsArgs {
    /// The gateway's configuration [default: walgate.toml if there is one]
    #[arg(short, long, env = "WALGATE_CONFIG")]
    config: Option<PathBuf>,
    /// A consumer in the gateway's account, which then uses --nats-inbox-prefix _INBOX_NAME; may be repeated
    #[arg(long = "consumer", value_name = "NAME", default_value = "consumer")]
    consumers: Vec<String>,
    /// Consumers have accounts of their own: print what WALGATE, the gateway's account, exports and theirs import
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
            let client = streams::connect(access).await?;
            nats.create = true;
            Box::pin(streams::Streams::ensure(&client, &nats, &tables)).await?;
            println!("the streams and buckets are there");
        }
    }
    Ok(ExitCode::SUCCESS)
}
