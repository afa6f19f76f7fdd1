//! Random mutations of inputs from a seed, without the coverage feedback of a fuzzer.

use rand::{Rng, rngs::SmallRng};

/// Numbers at the limits of lengths and signs.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1];
const LEN_MAX: usize = 16 << 10;

/// Mutates `input` one to four times. Some mutations copy parts of `other`.
pub fn mutate(random: &mut SmallRng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..=4) {
        mutate_once(random, &mut bytes, other);
    }
    bytes.truncate(LEN_MAX);
    bytes
}

fn mutate_once(random: &mut SmallRng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.random_range(0..=bytes.len());
    let len = random.random_range(0..=8.min(bytes.len() - at));
    match random.random_range(0..8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..at + len)),
        2 => {
            let again = bytes[at..at + len].repeat(random.random_range(1..=64));
            bytes.splice(at..at, again);
        }
        3 => {
            let from = random.random_range(0..=other.len());
            let to = random.random_range(from..=other.len());
            bytes.splice(at..at + len, other[from..to].iter().copied());
        }
        4 => bytes.insert(at, random.random()),
        5 => write_edge_number(random, &mut bytes[at..]),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if random.random() {
                    *byte ^ (1 << random.random_range(0..8))
                } else {
                    random.random()
                };
            }
        }
    }
}

/// Writes one of [`EDGES`] in 1, 2, 4 or 8 bytes, in either byte order.
fn write_edge_number(random: &mut SmallRng, bytes: &mut [u8]) {
    let width = 1 << random.random_range(0..4);
    let number = EDGES[random.random_range(0..EDGES.len())];
    let big = number.to_be_bytes();
    let little = number.to_le_bytes();
    let written = if random.random() { &big[8 - width..] } else { &little[..width] };
    bytes.iter_mut().zip(written).for_each(|(byte, new)| *byte = *new);
}
