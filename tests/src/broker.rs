//! NATS for tests: one server for each test, because subjects are fixed, or a cluster of three.

use std::{path::PathBuf, time::Duration};

use async_nats::{Client, ConnectOptions, jetstream};
use walgate_servers::{NatsBin, NatsOptions, PrivateNats, find_nats, free_port};

use crate::{
    eventually,
    proxy::{Network, Proxy},
};

/// A running NATS with JetStream.
pub struct Broker {
    pub server: PrivateNats,
    /// The other two nodes of a cluster.
    pub peers: Vec<PrivateNats>,
    links: Vec<Link>,
    /// The proxy that all programs but the test itself connect through.
    front: Option<Proxy>,
    client: Client,
}

/// The path from one node of a cluster to another.
struct Link {
    from: usize,
    to: usize,
    proxy: Proxy,
}

/// The nats-server to test with.
pub fn nats_bin() -> NatsBin {
    let explicit = std::env::var_os("WALGATE_NATS_SERVER").map(PathBuf::from);
    find_nats(explicit.as_deref()).expect("a nats-server; run `cargo xtask setup`").bin
}

impl Broker {
    pub async fn start(options: NatsOptions) -> Broker {
        Broker::start_as(options, ConnectOptions::new()).await
    }

    /// On a server that requires authentication; the test connects as `who`.
    pub async fn start_as(options: NatsOptions, who: ConnectOptions) -> Broker {
        let server = PrivateNats::start(&nats_bin(), options).expect("NATS starts");
        let client = connect(who, &[server.url()]).await;
        Broker { server, peers: vec![], links: vec![], front: None, client }
    }

    /// The same server behind a proxy. Only the test itself connects directly.
    pub async fn behind_proxy(mut self) -> Broker {
        self.front = Some(Proxy::in_front_of(self.server.port()).await);
        self
    }

    /// Three nodes; each reaches each other node through its own proxy.
    pub async fn cluster() -> Broker {
        Broker::cluster_as("", ConnectOptions::new()).await
    }

    /// The same, with `more` in each node's configuration; the test connects as `who`.
    pub async fn cluster_as(more: &str, who: ConnectOptions) -> Broker {
        let ports = [(); 3].map(|()| free_port().expect("a free port"));
        let mut links = vec![];
        for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
            if from != to {
                links.push(Link { from, to, proxy: Proxy::in_front_of(ports[to]).await });
            }
        }
        // Started one after the other: a node is ready before it has met the others.
        let mut nodes = (0..3).map(|node| {
            let routes = links.iter().filter(|link| link.from == node);
            let routes: Vec<_> = routes
                .map(|link| format!("\"nats-route://127.0.0.1:{}\"", link.proxy.port()))
                .collect();
            let extra_config = format!(
                "server_name: node{node}\n\
                 ping_interval: \"2s\"\n\
                 cluster {{ name: walgate, listen: \"127.0.0.1:{}\", no_advertise: true, pool_size: -1, routes: [{}] }}\n{more}\n",
                ports[node],
                routes.join(", ")
            );
            let options = NatsOptions { extra_config, ..NatsOptions::default() };
            PrivateNats::start(&nats_bin(), options).expect("a node of NATS starts")
        });
        let server = nodes.next().expect("three nodes");
        let peers: Vec<_> = nodes.collect();
        let urls: Vec<_> = [&server].into_iter().chain(&peers).map(PrivateNats::url).collect();
        let client = connect(who, &urls).await;
        let broker = Broker { server, peers, links, front: None, client };
        eventually("the nodes have found each other", async || {
            let account = broker.jetstream().query_account().await;
            account.map(drop).map_err(|e| e.to_string())
        })
        .await;
        broker
    }

    /// The URLs of all nodes, separated by commas.
    pub fn url(&self) -> String {
        if let Some(front) = &self.front {
            return format!("nats://127.0.0.1:{}", front.port());
        }
        let nodes = [&self.server].into_iter().chain(&self.peers);
        nodes.map(PrivateNats::url).collect::<Vec<_>>().join(",")
    }

    /// Sets the condition of the network between the server and all programs but the test.
    pub fn set_network(&self, network: Network) {
        self.front.as_ref().expect("a broker behind a proxy").set_network(network);
    }

    pub fn node_count(&self) -> usize {
        1 + self.peers.len()
    }

    pub fn node(&mut self, node: usize) -> &mut PrivateNats {
        match node {
            0 => &mut self.server,
            peer => &mut self.peers[peer - 1],
        }
    }

    /// Sets the condition of the network between one node and the others. Clients still reach it.
    pub fn set_network_around(&self, node: usize, network: Network) {
        let touched = self.links.iter().filter(|link| link.from == node || link.to == node);
        touched.for_each(|link| link.proxy.set_network(network));
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client.clone())
    }

    /// The node that leads a stream of a cluster; waits for an election.
    pub async fn find_leader(&self, stream: &str) -> usize {
        eventually(format!("{stream} has a leader"), async || {
            let cluster = self.cluster_info(stream).await?;
            let leader = cluster.leader.as_deref().and_then(|name| name.strip_prefix("node"));
            leader.and_then(|n| n.parse().ok()).ok_or_else(|| format!("{:?}", cluster.leader))
        })
        .await
    }

    /// Waits until every node has every message.
    pub async fn wait_until_replicated(&self) {
        for stream in ["CDC", "INIT", "KV_schemas", "KV_dictionaries", "REQUESTS"] {
            eventually(format!("{stream} is in step"), async || {
                let cluster = self.cluster_info(stream).await?;
                let in_step = cluster.replicas.iter().filter(|peer| peer.current).count();
                if cluster.leader.is_some() && in_step == self.peers.len() {
                    Ok(())
                } else {
                    Err(format!("{cluster:?}"))
                }
            })
            .await;
        }
    }

    async fn cluster_info(&self, stream: &str) -> Result<jetstream::stream::ClusterInfo, String> {
        let info = self.jetstream().get_stream(stream).await.map_err(|e| e.to_string())?;
        info.cached_info().cluster.clone().ok_or_else(|| "no cluster".to_owned())
    }
}

async fn connect(who: ConnectOptions, urls: &[String]) -> Client {
    who.retry_on_initial_connect()
        .reconnect_delay_callback(|_| Duration::from_millis(50))
        .connect(urls)
        .await
        .expect("an address")
}
