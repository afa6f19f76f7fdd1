//! NATS for tests: a server a test, because subjects are fixed.

use std::path::PathBuf;

use async_nats::{Client, jetstream};
use walgate_servers::{NatsBin, NatsOptions, PrivateNats, find_nats};

/// A running NATS with JetStream.
pub struct Broker {
    pub server: PrivateNats,
    client: Client,
}

/// The server to test with.
pub fn nats_bin() -> NatsBin {
    let explicit = std::env::var_os("WALGATE_NATS_SERVER").map(PathBuf::from);
    find_nats(explicit.as_deref()).expect("a nats-server; run `cargo xtask setup`").bin
}

impl Broker {
    pub async fn start(options: NatsOptions) -> Broker {
        Broker::start_as(options, async_nats::ConnectOptions::new()).await
    }

    /// On a server that does not let everybody in, the test comes as `who`.
    pub async fn start_as(options: NatsOptions, who: async_nats::ConnectOptions) -> Broker {
        let server = PrivateNats::start(&nats_bin(), options).expect("NATS starts");
        let client = who
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| std::time::Duration::from_millis(50))
            .connect(server.url())
            .await
            .expect("an address");
        Broker { server, client }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client.clone())
    }
}
