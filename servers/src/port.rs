//! Free ports on the loopback address, below the ephemeral range: a client that waits for a server
//! on an ephemeral port can connect to itself. What will listen there is not known here.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

use crate::{Error, Result};

const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;
const ATTEMPTS: u64 = 200;

/// A port that no process listens on at this moment. Another process may still take it first: a server
/// that cannot bind it should ask again.
pub fn free_port() -> Result<u16> {
    let seed = RandomState::new();
    (0..ATTEMPTS)
        .map(|attempt| pick_port(&seed, attempt))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .ok_or(Error::NoPort { from: FIRST, to: LAST })
}

fn pick_port(seed: &RandomState, attempt: u64) -> u16 {
    let mut hasher = seed.build_hasher();
    hasher.write_u64(attempt);
    let span = u64::from(LAST - FIRST) + 1;
    FIRST + (hasher.finish() % span) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_below_the_ephemeral_range_and_vary() {
        let ports: Vec<u16> = (0..20).map(|_| free_port().unwrap()).collect();
        assert!(ports.iter().all(|p| (FIRST..=LAST).contains(p)));
        assert!(ports.iter().any(|p| *p != ports[0]));
    }
}
