//! A TCP proxy on loopback that can degrade the network. It makes connections slow, or half-open:
//! both ends keep a connection on which no bytes arrive. The proxy does not know the protocol.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use walgate_servers::free_port;

const PIECE_BYTES: usize = 16 << 10;

/// The condition of the network, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Good,
    /// Each piece of at most 16 KiB is delayed by this much.
    Slow(Duration),
    /// Bytes are accepted and discarded, without an error at either end. New connections behave the
    /// same.
    Silent,
}

/// Forwards to one address until it is dropped.
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of a local port, which may open later.
    pub async fn in_front_of(target: u16) -> Proxy {
        // Below the ephemeral ports, as for all servers here. Another program may still take the
        // port.
        let listener = loop {
            let port = free_port().expect("a free port");
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
                break listener;
            }
        };
        let port = listener.local_addr().expect("a bound socket").port();
        let (network, condition) = watch::channel(Network::Good);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(forward_connection(near, target, condition.clone()));
            }
        });
        Proxy { port, network, accepting }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set_network(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Runs until both ends have closed the connection.
async fn forward_connection(near: TcpStream, target: u16, network: watch::Receiver<Network>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(
        forward_bytes(near_in, far_out, network.clone()),
        forward_bytes(far_in, near_out, network)
    );
}

async fn forward_bytes(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
) {
    let mut piece = vec![0; PIECE_BYTES];
    let mut swallowed = false;
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let condition = *network.borrow();
        match condition {
            Network::Good => {}
            Network::Slow(delay) => tokio::time::sleep(delay).await,
            Network::Silent => swallowed = true,
        }
        // After a gap the following bytes are useless: such a connection stays half-open.
        if !swallowed && to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    // While the network is silent, the other end does not see the close, either.
    let _ = network.wait_for(|network| *network != Network::Silent).await;
}
