//! An SQL session of a command, beside those of the gateway. What it runs is not known here.

use anyhow::Result;
use tokio_postgres::Client;
use walgate_host::{config::PostgresConfig, postgres::endpoint::Endpoint};

/// Opens a session. The connection ends when the client is dropped.
pub async fn connect(url: &str) -> Result<Client> {
    let endpoint = Endpoint::of(&PostgresConfig::at(url.into(), String::new()))?;
    let connected = endpoint.server().connect().await;
    let (client, connection) =
        connected.map_err(|error| endpoint.explain_refusal(&endpoint.target(), error))?;
    tokio::spawn(async move {
        // If the connection is lost, the client's calls fail.
        let _ = connection.await;
    });
    Ok(client)
}
