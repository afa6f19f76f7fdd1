//! Start-up of a replication connection: parameters, then trust, cleartext, md5 or SCRAM-SHA-256,
//! with channel binding if the connection is encrypted. What follows the start-up is not known
//! here.

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

use super::{
    messages::{self, Messages},
    socket::Writer,
    timing::Timing,
};
use crate::postgres::{PostgresError, SESSION_SETTINGS, endpoint::Endpoint};

/// Runs the start-up until the server is ready for the first command. `end_point`: the channel that
/// SCRAM can bind to.
pub(super) async fn start_up(
    messages: &mut Messages,
    writer: &mut Writer,
    endpoint: &Endpoint,
    end_point: Option<Vec<u8>>,
    timing: Timing,
) -> Result<(), PostgresError> {
    let mut start_up = StartUp { messages, writer, endpoint, end_point };
    start_up.run(timing).await.map_err(|error| match error {
        // The server refused the client certificate.
        PostgresError::Lost(error) => match explain_certificate_refusal(&error) {
            Some(text) => endpoint.explain_refusal(&endpoint.target(), PgConnectError::Tls(text)),
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

/// A SCRAM exchange in progress.
struct Scram {
    exchange: ScramSha256,
    bound: bool,
    /// The server has proved that it knows the password.
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
                b'E' => return Err(explain_error(endpoint, body)),
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
                b'E' => return Err(explain_error(endpoint, body)),
                _ => continue,
            }
            let Some((method, data)) = body.split_first_chunk::<4>() else {
                return Err(malformed("an authentication request that ends too early"));
            };
            match u32::from_be_bytes(*method) {
                0 => return check_authenticated(endpoint, scram.as_ref()),
                3 => {
                    allow_unbound(endpoint)?;
                    let password = required_password(endpoint)?;
                    self.send(|out| frontend::password_message(password, out)).await?;
                }
                5 => {
                    allow_unbound(endpoint)?;
                    let hash = md5_response(endpoint, data)?;
                    self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                10 => {
                    let offered = Offered::read(data);
                    scram = Some(self.begin_scram(offered).await?);
                }
                method @ (11 | 12) => {
                    let data = data.to_vec();
                    self.continue_scram(scram.as_mut(), method, &data).await?;
                }
                method => {
                    return Err(explain_unsupported(
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
        let channel_binding = endpoint.config().get_channel_binding();
        let end_point =
            self.end_point.clone().filter(|_| channel_binding != ChannelBinding::Disable);
        let (binding, mechanism, bound) = match end_point {
            Some(hash) if offered.bound => {
                (sasl::ChannelBinding::tls_server_end_point(hash), SCRAM_SHA_256_PLUS, true)
            }
            _ if !offered.plain => {
                return Err(explain_unsupported(
                    endpoint,
                    "it asks for a SASL mechanism other than SCRAM-SHA-256",
                ));
            }
            // The client states its support. A server that supports binding too then detects that
            // an attacker removed it from the list.
            Some(_) => (sasl::ChannelBinding::unrequested(), SCRAM_SHA_256, false),
            None => (sasl::ChannelBinding::unsupported(), SCRAM_SHA_256, false),
        };
        if !bound {
            allow_unbound(endpoint)?;
        }
        let exchange = ScramSha256::new(required_password(endpoint)?, binding);
        self.send(|out| frontend::sasl_initial_response(mechanism, exchange.message(), out))
            .await?;
        Ok(Scram { exchange, bound, proved: false })
    }

    /// 11: the server's challenge. 12: its proof that it knows the password.
    async fn continue_scram(
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
            explain_unsupported(
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

/// Which of the supported mechanisms the server offers.
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

fn check_authenticated(endpoint: &Endpoint, scram: Option<&Scram>) -> Result<(), PostgresError> {
    match scram {
        Some(scram) if !scram.proved => {
            Err(malformed("its consent without a proof that it knows the password"))
        }
        Some(scram) if scram.bound => Ok(()),
        _ => allow_unbound(endpoint),
    }
}

/// Refuses to send a password that a man in the middle could use, if the URL requires binding.
fn allow_unbound(endpoint: &Endpoint) -> Result<(), PostgresError> {
    if endpoint.config().get_channel_binding() == ChannelBinding::Require {
        return Err(explain_unsupported(
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

fn explain_error(endpoint: &Endpoint, body: &[u8]) -> PostgresError {
    match messages::server_error("open a connection", body) {
        PostgresError::Server { message, code, .. } => {
            endpoint.explain_refusal(&endpoint.target(), PgConnectError::Server { message, code })
        }
        error => error,
    }
}

fn explain_unsupported(endpoint: &Endpoint, what: &str) -> PostgresError {
    endpoint.explain_refusal(&endpoint.target(), PgConnectError::Authentication(what.to_owned()))
}

fn malformed(what: &str) -> PostgresError {
    PostgresError::Protocol(what.to_owned())
}

fn required_password(endpoint: &Endpoint) -> Result<&[u8], PostgresError> {
    let none = || endpoint.explain_refusal(&endpoint.target(), PgConnectError::NoPassword);
    endpoint.config().get_password().ok_or_else(none)
}

fn md5_response(endpoint: &Endpoint, salt: &[u8]) -> Result<String, PostgresError> {
    let salt = salt.try_into().map_err(|_| malformed("an md5 salt that is not four bytes"))?;
    let user = endpoint.config().get_user().unwrap_or_default();
    Ok(md5_hash(user.as_bytes(), required_password(endpoint)?, salt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PostgresConfig;

    /// Runs the start-up against a server that sends `messages` whatever the client sends. Returns
    /// the result and the bytes that the client sent.
    async fn start_up_against(
        url: &str,
        messages: &[(u8, &[u8])],
    ) -> (Result<(), String>, Vec<u8>) {
        let endpoint = Endpoint::of(&PostgresConfig::at(url.into(), String::new())).unwrap();
        let bytes: Vec<u8> = messages
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
    async fn a_server_that_demands_a_proof_must_prove_itself() {
        let (result, _) = start_up_against(URL, &[SCRAM, OK, READY]).await;
        assert!(result.unwrap_err().contains("without a proof"));
        assert_eq!(start_up_against(URL, &[OK, READY]).await.0, Ok(()));
    }

    #[tokio::test]
    async fn a_password_that_must_be_bound_is_not_sent_unbound() {
        let url = format!("{URL}?channel_binding=require");
        for messages in [&[CLEARTEXT, OK, READY][..], &[SCRAM, OK, READY], &[OK, READY]] {
            let (result, sent) = start_up_against(&url, messages).await;
            assert!(result.unwrap_err().contains("channel_binding=require"));
            assert!(!sent.windows(7).any(|part| part == b"hunter2"));
        }
        let (result, sent) = start_up_against(URL, &[CLEARTEXT, OK, READY]).await;
        assert_eq!(result, Ok(()));
        assert!(sent.windows(7).any(|part| part == b"hunter2"));
    }

    #[tokio::test]
    async fn unsupported_methods_are_explained() {
        let gssapi: (u8, &[u8]) = (b'R', b"\0\0\0\x07");
        let (result, _) = start_up_against(URL, &[gssapi]).await;
        let error = result.unwrap_err();
        assert!(error.contains("GSSAPI") && error.contains("scram-sha-256"), "{error}");
        let (result, _) = start_up_against("postgres://u@h/d", &[SCRAM]).await;
        assert!(result.unwrap_err().contains("postgres.password_file"));
    }
}
