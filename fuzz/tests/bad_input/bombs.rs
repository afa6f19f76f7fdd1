//! Bodies that are small on the wire and huge in memory. Parsers refuse them before allocating.

use walgate_fuzz::measure_peak;
use walgate_wire::{
    Caps, Compressor, Decompressor, FrameError, InitMeta, Reader, Schema, decode_changes,
    decode_chunk, from_msgpack, pack,
};

use crate::lock_heap;

const GIB: usize = 1 << 30;
/// Most bytes of heap that a refusal may use.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// A valid frame of 1 GiB that takes less than 64 KiB on the wire.
fn gib_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    let mut compressor = Compressor::new(1, None).expect("a compressor");
    compressor.compress(&vec![0; GIB], &mut frame).expect("a frame");
    assert!(frame.len() < 64 << 10, "{}", frame.len());
    frame.shrink_to_fit();
    frame
}

/// Replaces the header of a frame by one that declares `declared` bytes of content.
///
/// The new header has the magic number, a descriptor, and a content size of 8 bytes.
fn restate_content_size(frame: &[u8], declared: u64) -> Vec<u8> {
    // Descriptor: 8-byte size (3 << 6), one segment (1 << 5), checksum (1 << 2).
    let header_bytes = 4 + 1 + if frame[4] & 0x20 == 0 { 1 } else { 0 };
    let size_bytes = [0, 2, 4, 8][usize::from(frame[4] >> 6)];
    let single_segment = [&frame[..4], &[0b1110_0100], &declared.to_le_bytes()[..]].concat();
    [single_segment, frame[header_bytes + size_bytes..].to_vec()].concat()
}

#[test]
fn a_gib_in_a_small_frame_is_refused_unread() {
    let _lock = lock_heap();
    let frame = gib_frame();
    let mut decompressor = Decompressor::new(None).unwrap();
    let (result, taken) = measure_peak(|| decompressor.decompress(&frame, &Caps::default()));
    assert!(
        matches!(result, Err(FrameError::TooLarge { declared_bytes, .. }) if declared_bytes == GIB as u64)
    );
    assert!(taken < REFUSAL_BYTES_MAX, "{taken} bytes to refuse {}", frame.len());
}

#[test]
fn a_gib_that_declares_less_takes_only_what_it_declares() {
    let _lock = lock_heap();
    let declared = 1 << 20;
    let lying = restate_content_size(&gib_frame(), declared);
    let mut decompressor = Decompressor::new(None).unwrap();
    let (result, taken) = measure_peak(|| decompressor.decompress(&lying, &Caps::default()));
    assert!(matches!(result, Err(FrameError::Zstd(_))), "{result:?}");
    assert!(taken < declared as usize + REFUSAL_BYTES_MAX, "{taken}");
}

#[test]
fn a_frame_that_declares_more_than_it_holds_is_refused() {
    let _lock = lock_heap();
    let mut frame = Vec::new();
    Compressor::new(1, None).unwrap().compress(b"twelve bytes", &mut frame).unwrap();
    for declared in [GIB as u64, u64::MAX - 2, 1 << 40] {
        let lying = restate_content_size(&frame, declared);
        let mut decompressor = Decompressor::new(None).unwrap();
        let (result, taken) = measure_peak(|| decompressor.decompress(&lying, &Caps::default()));
        assert!(matches!(result, Err(FrameError::TooLarge { .. })), "{declared}: {result:?}");
        assert!(taken < REFUSAL_BYTES_MAX, "{taken}");
    }
}

/// Parses the bytes with every parser of a consumer. Returns the heap that each refusal used.
fn measure_refusals(body: &[u8]) -> Vec<usize> {
    let caps = Caps::default();
    let chunk = {
        let mut chunk = vec![];
        pack::array(&mut chunk, 3);
        (0..2).for_each(|_| pack::uint(&mut chunk, 1));
        pack::array(&mut chunk, 1);
        pack::array(&mut chunk, 2);
        pack::uint(&mut chunk, 0);
        [chunk, body.to_vec()].concat()
    };
    let changes = {
        let mut writer = walgate_wire::ChangeWriter::default();
        writer.transaction(walgate_wire::Lsn(1), 1, 1);
        writer.insert(1);
        [writer.out, body.to_vec()].concat()
    };
    let (value, a) = measure_peak(|| Reader::new(body, &caps).value().is_err());
    let (changes, b) = measure_peak(|| decode_changes(&changes, 1, &caps).is_err());
    let (chunk, c) = measure_peak(|| decode_chunk(&chunk, 1, &caps).is_err());
    let (schema, d) = measure_peak(|| from_msgpack::<Schema>(body).is_err());
    let (meta, e) = measure_peak(|| from_msgpack::<InitMeta>(body).is_err());
    assert!(value && changes && chunk && schema && meta);
    vec![a, b, c, d, e]
}

#[test]
fn lists_of_2_to_the_32_are_refused_unread() {
    let _lock = lock_heap();
    for marker in [0xdd, 0xdf, 0xc6, 0xdb] {
        let body = [marker, 0xff, 0xff, 0xff, 0xff, 0xc0, 0xc0];
        assert!(measure_refusals(&body).into_iter().all(|taken| taken < REFUSAL_BYTES_MAX));
    }
}

#[test]
fn nesting_of_10_000_is_refused() {
    let _lock = lock_heap();
    let in_arrays = vec![0x91; 10_000];
    let in_maps = [0x81, 0xc0].repeat(10_000);
    let announced = [0xdd, 0, 0, 0x20, 0].repeat(10_000);
    for body in [in_arrays, in_maps, announced] {
        // At most 64 levels reserve memory for a list.
        let taken = measure_refusals(&body);
        assert!(taken.iter().all(|&taken| taken < 1 << 20), "{taken:?}");
    }
}

#[test]
fn a_list_of_lists_takes_32_bytes_a_value() {
    let _lock = lock_heap();
    let mut body = vec![0xdd, 0, 0x10, 0, 0];
    body.extend([0x91, 0xc0].repeat(1 << 20));
    let (value, taken) = measure_peak(|| Reader::new(&body, &Caps::default()).value());
    assert!(value.is_ok());
    // An element has two values. The outer list doubles, and exists twice while it is copied.
    assert!(taken <= 32 * (1 << 20) * 4 + REFUSAL_BYTES_MAX, "{taken}");
    drop(value);
    let caps = Caps { values_max: 1 << 20, ..Caps::default() };
    assert!(Reader::new(&body, &caps).value().is_err());
}
