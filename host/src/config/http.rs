//! `[http]`: the address of the status pages. What they show is not known here.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ConfigError, invalid};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {
    /// Address of `/healthz` and `/readyz`.
    pub listen: String,
}

impl Default for RawHttp {
    fn default() -> Self {
        RawHttp { listen: "127.0.0.1:8088".into() }
    }
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
}

impl RawHttp {
    pub(super) fn validate(self) -> Result<HttpConfig, ConfigError> {
        match self.listen.parse::<SocketAddr>() {
            Ok(listen) => Ok(HttpConfig { listen }),
            Err(_) => invalid(
                "http.listen",
                format!("'{}' is no address: write 127.0.0.1:8088", self.listen),
            ),
        }
    }
}
