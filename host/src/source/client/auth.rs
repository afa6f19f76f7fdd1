//! Start-up of a replication connection: parameters, then trust, cleartext, md5 or SCRAM-SHA-256.

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::frontend,
};
use tokio::io::AsyncWriteExt;
use tokio_postgres::Config;

use super::{
    SESSION_SETTINGS, Timing, Writer,
    messages::{self, Messages},
};
use crate::source::SourceError;

/// Until the server is ready for the first command.
pub(super) async fn start_up(
    messages: &mut Messages,
    writer: &mut Writer,
    config: &Config,
    timing: Timing,
) -> Result<(), SourceError> {
    send(writer, |out| startup_message(config, timing, out)).await?;
    authenticate(messages, writer, config).await?;
    loop {
        let (tag, body) = messages.next().await?;
        match tag {
            b'Z' => return Ok(()),
            b'E' => return Err(messages::server_error("open a replication connection", body)),
            _ => {}
        }
    }
}

fn startup_message(config: &Config, timing: Timing, out: &mut BytesMut) -> std::io::Result<()> {
    let user = config.get_user().unwrap_or_default();
    let timeout = format!("{}ms", timing.wal_sender_timeout_ms);
    let mut parameters = vec![
        ("user", user),
        ("database", config.get_dbname().unwrap_or(user)),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        ("application_name", config.get_application_name().unwrap_or("walgate")),
        ("wal_sender_timeout", &timeout),
    ];
    parameters.extend(SESSION_SETTINGS);
    if let Some(options) = config.get_options() {
        parameters.push(("options", options));
    }
    frontend::startup_message(parameters, out)
}

async fn authenticate(
    messages: &mut Messages,
    writer: &mut Writer,
    config: &Config,
) -> Result<(), SourceError> {
    let mut scram = None;
    loop {
        let (tag, body) = messages.next().await?;
        match tag {
            b'R' => {}
            b'E' => return Err(messages::server_error("open a replication connection", body)),
            _ => continue,
        }
        let Some((method, data)) = body.split_first_chunk::<4>() else {
            return Err(SourceError::Protocol(
                "an authentication request that ends too early".into(),
            ));
        };
        match u32::from_be_bytes(*method) {
            0 => return Ok(()),
            3 => {
                let password = password(config)?;
                send(writer, |out| frontend::password_message(password, out)).await?;
            }
            5 => {
                let hash = md5(config, data)?;
                send(writer, |out| frontend::password_message(hash.as_bytes(), out)).await?;
            }
            10 => {
                let offered = data.split(|&b| b == 0).any(|name| name == SCRAM_SHA_256.as_bytes());
                if !offered {
                    return Err(SourceError::Config(
                        "Postgres asks for a SASL mechanism other than SCRAM-SHA-256: change the method in pg_hba.conf".into(),
                    ));
                }
                let first = ScramSha256::new(password(config)?, ChannelBinding::unsupported());
                send(writer, |out| {
                    frontend::sasl_initial_response(SCRAM_SHA_256, first.message(), out)
                })
                .await?;
                scram = Some(first);
            }
            method @ (11 | 12) => scram_step(writer, &mut scram, method, data).await?,
            method => {
                return Err(SourceError::Config(format!(
                    "Postgres asks for authentication method {method} (Kerberos, GSSAPI or SSPI), which walgate does not \
                     speak: use scram-sha-256, md5, password, peer or trust in pg_hba.conf"
                )));
            }
        }
    }
}

/// 11: the server's challenge; 12: its proof that it knows the password as well.
async fn scram_step(
    writer: &mut Writer,
    scram: &mut Option<ScramSha256>,
    method: u32,
    data: &[u8],
) -> Result<(), SourceError> {
    let Some(scram) = scram else {
        return Err(SourceError::Protocol("a SCRAM challenge that was not asked for".into()));
    };
    let failed = |e: std::io::Error| {
        SourceError::Config(format!("SCRAM authentication failed: {e}; check the password"))
    };
    if method == 12 {
        return scram.finish(data).map_err(failed);
    }
    scram.update(data).map_err(failed)?;
    send(writer, |out| frontend::sasl_response(scram.message(), out)).await
}

fn password(config: &Config) -> Result<&[u8], SourceError> {
    config.get_password().ok_or_else(|| {
        SourceError::Config(
            "Postgres asks for a password, but [postgres] url has none: add it, or set WALGATE_POSTGRES_URL_FILE".into(),
        )
    })
}

fn md5(config: &Config, salt: &[u8]) -> Result<String, SourceError> {
    let salt = salt
        .try_into()
        .map_err(|_| SourceError::Protocol("an md5 salt that is not four bytes".into()))?;
    Ok(md5_hash(config.get_user().unwrap_or_default().as_bytes(), password(config)?, salt))
}

async fn send(
    writer: &mut Writer,
    message: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
) -> Result<(), SourceError> {
    let mut out = BytesMut::new();
    message(&mut out).map_err(|e| {
        SourceError::Config(format!("[postgres] url cannot be sent to the server: {e}"))
    })?;
    writer.write_all(&out).await.map_err(SourceError::Lost)
}
