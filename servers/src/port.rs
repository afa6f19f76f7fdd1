//! Free ports on the loopback address, below the ephemeral range: a client that waits for a server
//! on an ephemeral port can connect to itself. All processes of a user share one sequence of ports.

use std::fs::{self, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use crate::{Error, Result, cache_dir};

const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;
const ATTEMPTS: usize = 200;
/// In the cache directory: the next port of the sequence.
const SEQUENCE: &str = "next-port";

/// A port without a listener. A port is handed out again only after all others, in any process of
/// this user. So the port of a server that is about to start, or that restarts, stays free.
/// Programs outside of the sequence may still take it: if a server fails to bind, ask again.
pub fn free_port() -> Result<u16> {
    (0..ATTEMPTS)
        // Without a cache directory, ports of two processes may collide.
        .map(|_| next_port().unwrap_or_else(|_| random_port()))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .ok_or(Error::NoPort { from: FIRST, to: LAST })
}

fn next_port() -> io::Result<u16> {
    let cache = cache_dir();
    if !cache.is_dir() {
        fs::create_dir_all(&cache)?;
        // Whatever our umask: servers of another user run from this directory.
        fs::set_permissions(&cache, Permissions::from_mode(0o755))?;
    }
    let mut sequence = OpenOptions::new();
    sequence.read(true).write(true).create(true).truncate(false);
    let mut file = sequence.open(cache.join(SEQUENCE))?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let stored = text.trim().parse().ok().filter(|port| (FIRST..=LAST).contains(port));
    let port = stored.unwrap_or_else(random_port);
    let following = if port == LAST { FIRST } else { port + 1 };
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{following}")?;
    Ok(port)
}

fn random_port() -> u16 {
    let span = u64::from(LAST - FIRST) + 1;
    FIRST + (RandomState::new().hash_one(()) % span) as u16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn ports_stay_below_the_ephemeral_range_and_none_is_handed_out_twice() {
        let take = || (0..50).map(|_| free_port().unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(take)).collect();
        let ports: Vec<_> = threads.into_iter().flat_map(|taken| taken.join().unwrap()).collect();
        assert!(ports.iter().all(|port| (FIRST..=LAST).contains(port)));
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
    }

    #[test]
    fn random_ports_stay_in_the_range_and_vary() {
        let ports: Vec<u16> = (0..20).map(|_| random_port()).collect();
        assert!(ports.iter().all(|port| (FIRST..=LAST).contains(port)));
        assert!(ports.iter().any(|port| *port != ports[0]));
    }
}
