//! Network addresses and bit strings → text as Postgres prints it.
//!
//! IPv6 addresses are left to the server: their abbreviations are its own.

use std::io::Write;

use walgate_wire::{hex, pack};

use crate::encode::{PackError, fixed_bytes};

const IPV4: u8 = 2;
const IPV6: u8 = 3;

/// `inet` and `cidr`: family, bits of the mask, whether it is a cidr, bytes of the address,
/// address. For IPv6 it returns false and writes nothing.
pub(super) fn pack_address(bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, PackError> {
    let (address, bits, cidr) = match bytes {
        [IPV4, bits @ 0..=32, cidr, 4, address @ ..] => {
            (fixed_bytes::<4>(address)?, *bits, *cidr != 0)
        }
        [IPV6, 0..=128, _, 16, address @ ..] if address.len() == 16 => return Ok(false),
        _ => return Err(PackError::BadAddress),
    };
    let mut text = [0; 20];
    let mut rest = &mut text[..];
    let [a, b, c, d] = address;
    let mut fits = write!(rest, "{a}.{b}.{c}.{d}").is_ok();
    if cidr || bits != 32 {
        fits &= write!(rest, "/{bits}").is_ok();
    }
    debug_assert!(fits, "255.255.255.255/32 has 18 bytes");
    let left = rest.len();
    pack::str_bytes(out, &text[..text.len() - left]);
    Ok(true)
}

/// `macaddr` (6 bytes) and `macaddr8`.
pub(super) fn pack_mac(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    if bytes.len() != 6 && bytes.len() != 8 {
        return Err(PackError::WrongLength);
    }
    pack::str_header(out, bytes.len() * 3 - 1);
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            out.push(b':');
        }
        hex::append(out, &[*byte]);
    }
    Ok(())
}

/// `bit` and `varbit`: the number of bits, then bytes with the first bit on top.
pub(super) fn pack_bits(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    let (count, bits) = bytes.split_first_chunk::<4>().ok_or(PackError::EndsEarly)?;
    let count = u32::from_be_bytes(*count) as usize;
    if bits.len() != count.div_ceil(8) {
        return Err(PackError::WrongLength);
    }
    pack::str_header(out, count);
    out.extend((0..count).map(|bit| b'0' + (bits[bit / 8] >> (7 - bit % 8) & 1)));
    Ok(())
}
