//! Start-up of a replication connection: parameters, then trust, cleartext, md5 or SCRAM-SHA-256, with channel binding
//! where the connection is encrypted.

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::frontend,
};
use tokio::io::AsyncWriteExt;
use tokio_postgres::config::ChannelBinding;
use walgate_pg_connect::{PgConnectError, explain_certificate_refusal};

use crate::postgres::replication::{
    client::{Timing, Writer},
    messages::{self, Messages},
};
use crate::postgres::{PostgresError, SESSION_SETTINGS, endpoint::Endpoint};

/// Until the server is ready for the first command. `end_point`: what a proof can be bound to.
pub(super) async fn start_up(
    messages: &mut Messages,
    writer: &mut Writer,
    endpoint: &Endpoint,
    end_point: Option<Vec<u8>>,
    timing: Timing,
) -> Result<(), PostgresError> {
    let mut start_up = StartUp { messages, writer, endpoint, end_point };
    start_up.run(timing).await.map_err(|error| match error {
        // The server's verdict on our certificate.
        PostgresError::Lost(error) => match explain_certificate_refusal(&error) {
            Some(text) => endpoint.refused(&endpoint.target(), PgConnectError::Tls(text)),
            None => PostgresError::Lost(error),
        },
        error => error,
    })
}

struct StartUp<'a> {
    messages: &'a mut Messages,
    writer: &'a mut Writer,
    endpoint: &'a Endpoint,
    end_point: Option<Vec<u8>>,
}

/// A SCRAM exchange that was begun.
struct Scram {
    exchange: ScramSha256,
    bound: bool,
    /// The server has shown that it knows the password, too.
    proved: bool,
}

impl StartUp<'_> {
    async fn run(&mut self, timing: Timing) -> Result<(), PostgresError> {
        let endpoint = self.endpoint;
        self.send(|out| startup_message(endpoint, timing, out)).await?;
        self.authenticate().await?;
        loop {
            let (tag, body) = self.messages.next().await?;
            match tag {
                b'Z' => return Ok(()),
                b'E' => return Err(refused(endpoint, body)),
                _ => {}
            }
        }
    }

    async fn authenticate(&mut self) -> Result<(), PostgresError> {
        let endpoint = self.endpoint;
        let mut scram = None;
        loop {
            let (tag, body) = self.messages.next().await?;
            match tag {
                b'R' => {}
                b'E' => return Err(refused(endpoint, body)),
                _ => continue,
            }
            let Some((method, data)) = body.split_first_chunk::<4>() else {
                return Err(malformed("an authentication request that ends too early"));
            };
            match u32::from_be_bytes(*method) {
                0 => return authenticated(endpoint, scram.as_ref()),
                3 => {
                    may_be_unbound(endpoint)?;
                    let password = password(endpoint)?;
                    self.send(|out| frontend::password_message(password, out)).await?;
                }
                5 => {
                    may_be_unbound(endpoint)?;
                    let hash = md5(endpoint, data)?;
                    self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                10 => {
                    let offered = Offered::read(data);
                    scram = Some(self.begin_scram(offered).await?);
                }
                method @ (11 | 12) => {
                    let data = data.to_vec();
                    self.scram_step(scram.as_mut(), method, &data).await?;
                }
                method => {
                    return Err(unsupported(
                        endpoint,
                        &format!(
                            "it asks for authentication method {method} (Kerberos, GSSAPI or SSPI), which walgate does not speak"
                        ),
                    ));
                }
            }
        }
    }

    async fn begin_scram(&mut self, offered: Offered) -> Result<Scram, PostgresError> {
        let endpoint = self.endpoint;
        let wish = endpoint.config().get_channel_binding();
        let end_point = self.end_point.clone().filter(|_| wish != ChannelBinding::Disable);
        let (binding, mechanism, bound) = match end_point {
            Some(hash) if offered.bound => {
                (sasl::ChannelBinding::tls_server_end_point(hash), SCRAM_SHA_256_PLUS, true)
            }
            _ if !offered.plain => {
                return Err(unsupported(
                    endpoint,
                    "it asks for a SASL mechanism other than SCRAM-SHA-256",
                ));
            }
            // Says that we could: a server that could as well then knows that somebody took it off its list.
            Some(_) => (sasl::ChannelBinding::unrequested(), SCRAM_SHA_256, false),
            None => (sasl::ChannelBinding::unsupported(), SCRAM_SHA_256, false),
        };
        if !bound {
            may_be_unbound(endpoint)?;
        }
        let exchange = ScramSha256::new(password(endpoint)?, binding);
        self.send(|out| frontend::sasl_initial_response(mechanism, exchange.message(), out))
            .await?;
        Ok(Scram { exchange, bound, proved: false })
    }

    /// 11: the server's challenge; 12: its proof that it knows the password as well.
    async fn scram_step(
        &mut self,
        scram: Option<&mut Scram>,
        method: u32,
        data: &[u8],
    ) -> Result<(), PostgresError> {
        let endpoint = self.endpoint;
        let Some(scram) = scram else {
            return Err(malformed("a SCRAM challenge that was not asked for"));
        };
        let failed = |e: std::io::Error| {
            unsupported(
                endpoint,
                &format!(
                    "SCRAM authentication failed, it may not be the server that it should be: {e}"
                ),
            )
        };
        if method == 12 {
            scram.exchange.finish(data).map_err(failed)?;
            scram.proved = true;
            return Ok(());
        }
        scram.exchange.update(data).map_err(failed)?;
        self.send(|out| frontend::sasl_response(scram.exchange.message(), out)).await
    }

    async fn send(
        &mut self,
        message: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), PostgresError> {
        let mut out = BytesMut::new();
        message(&mut out).map_err(|e| {
            PostgresError::Config(format!("postgres.url cannot be sent to the server: {e}"))
        })?;
        self.writer.write_all(&out).await.map_err(PostgresError::Lost)?;
        self.writer.flush().await.map_err(PostgresError::Lost)
    }
}

/// Which of the mechanisms that we know the server offers.
struct Offered {
    plain: bool,
    bound: bool,
}

impl Offered {
    fn read(list: &[u8]) -> Offered {
        let has = |name: &str| list.split(|&b| b == 0).any(|offered| offered == name.as_bytes());
        Offered { plain: has(SCRAM_SHA_256), bound: has(SCRAM_SHA_256_PLUS) }
    }
}

fn authenticated(endpoint: &Endpoint, scram: Option<&Scram>) -> Result<(), PostgresError> {
    match scram {
        Some(scram) if !scram.proved => {
            Err(malformed("its consent without a proof that it knows the password"))
        }
        Some(scram) if scram.bound => Ok(()),
        _ => may_be_unbound(endpoint),
    }
}

/// Before a password is shown in a way that somebody in between could use.
fn may_be_unbound(endpoint: &Endpoint) -> Result<(), PostgresError> {
    if endpoint.config().get_channel_binding() == ChannelBinding::Require {
        return Err(unsupported(
            endpoint,
            "it does not bind the password to the channel, which channel_binding=require wants",
        ));
    }
    Ok(())
}

fn startup_message(endpoint: &Endpoint, timing: Timing, out: &mut BytesMut) -> std::io::Result<()> {
    let config = endpoint.config();
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

fn refused(endpoint: &Endpoint, body: &[u8]) -> PostgresError {
    match messages::server_error("open a connection", body) {
        PostgresError::Server { message, code, .. } => {
            endpoint.refused(&endpoint.target(), PgConnectError::Server { message, code })
        }
        error => error,
    }
}

fn unsupported(endpoint: &Endpoint, what: &str) -> PostgresError {
    endpoint.refused(&endpoint.target(), PgConnectError::Authentication(what.to_owned()))
}

fn malformed(what: &str) -> PostgresError {
    PostgresError::Protocol(what.to_owned())
}

fn password(endpoint: &Endpoint) -> Result<&[u8], PostgresError> {
    let none = || endpoint.refused(&endpoint.target(), PgConnectError::NoPassword);
    endpoint.config().get_password().ok_or_else(none)
}

fn md5(endpoint: &Endpoint, salt: &[u8]) -> Result<String, PostgresError> {
    let salt = salt.try_into().map_err(|_| malformed("an md5 salt that is not four bytes"))?;
    let user = endpoint.config().get_user().unwrap_or_default();
    Ok(md5_hash(user.as_bytes(), password(endpoint)?, salt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PostgresConfig;

    /// How we answer one who says all this whatever we say, and what we said.
    async fn answer(url: &str, said: &[(u8, &[u8])]) -> (Result<(), String>, Vec<u8>) {
        let endpoint = Endpoint::of(&PostgresConfig::at(url.into(), String::new())).unwrap();
        let bytes: Vec<u8> = said
            .iter()
            .flat_map(|(tag, body)| {
                [&[*tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
            })
            .collect();
        let mut messages = Messages::new(Box::new(std::io::Cursor::new(bytes)));
        let (ours, mut theirs) = tokio::io::duplex(1 << 12);
        let mut writer: Writer = Box::new(ours);
        let result = start_up(&mut messages, &mut writer, &endpoint, None, Timing::default()).await;
        drop(writer);
        let mut sent = vec![];
        tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut sent).await.unwrap();
        (result.map_err(|e| e.to_string()), sent)
    }

    const OK: (u8, &[u8]) = (b'R', b"\0\0\0\0");
    const CLEARTEXT: (u8, &[u8]) = (b'R', b"\0\0\0\x03");
    const SCRAM: (u8, &[u8]) = (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    const READY: (u8, &[u8]) = (b'Z', b"I");
    const URL: &str = "postgres://u:hunter2@h/d";

    #[tokio::test]
    async fn whoever_asks_for_a_proof_has_to_give_one() {
        let (result, _) = answer(URL, &[SCRAM, OK, READY]).await;
        assert!(result.unwrap_err().contains("without a proof"));
        assert_eq!(answer(URL, &[OK, READY]).await.0, Ok(()));
    }

    #[tokio::test]
    async fn a_password_that_has_to_be_bound_is_not_shown_otherwise() {
        let url = format!("{URL}?channel_binding=require");
        for said in [&[CLEARTEXT, OK, READY][..], &[SCRAM, OK, READY], &[OK, READY]] {
            let (result, sent) = answer(&url, said).await;
            assert!(result.unwrap_err().contains("channel_binding=require"));
            assert!(!sent.windows(7).any(|part| part == b"hunter2"));
        }
        let (result, sent) = answer(URL, &[CLEARTEXT, OK, READY]).await;
        assert_eq!(result, Ok(()));
        assert!(sent.windows(7).any(|part| part == b"hunter2"));
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_said() {
        let gssapi: (u8, &[u8]) = (b'R', b"\0\0\0\x07");
        let (result, _) = answer(URL, &[gssapi]).await;
        let error = result.unwrap_err();
        assert!(error.contains("GSSAPI") && error.contains("scram-sha-256"), "{error}");
        let (result, _) = answer("postgres://u@h/d", &[SCRAM]).await;
        assert!(result.unwrap_err().contains("postgres.password_file"));
    }
}
