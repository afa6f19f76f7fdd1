//! A TCP proxy on loopback that can make a network bad: slow, or half-open, where both ends keep a connection on
//! which nothing arrives any more. What flows through it is not known here.

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

/// What becomes of bytes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Good,
    /// Each piece of at most 16 KiB is held for so long.
    Slow(Duration),
    /// Bytes are taken and never arrive; nobody is told. New connections are accepted, and as silent.
    Silent,
}

/// Forwards to one address for as long as it lives.
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// In front of a port of this machine, which may open later.
    pub async fn before(target: u16) -> Proxy {
        // Below the ephemeral ports, as all servers here; another may be quicker to take it.
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
                connections.spawn(connection(near, target, condition.clone()));
            }
        });
        Proxy { port, network, accepting }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Until both ends have closed it.
async fn connection(near: TcpStream, target: u16, network: watch::Receiver<Network>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(pump(near_in, far_out, network.clone()), pump(far_in, near_out, network));
}

async fn pump(
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
        // After a loss nothing that follows would make sense: such a connection stays half-open.
        if !swallowed && to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    // The end is not heard of, either, while nothing is.
    let _ = network.wait_for(|network| *network != Network::Silent).await;
}
