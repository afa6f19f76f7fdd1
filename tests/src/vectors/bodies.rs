//! Vectors of changes and chunks: every value, every operation, every kind of compression, and
//! bodies that a reader must refuse.

use serde_json::{Value as Json, json};
use walgate_wire::{
    Caps, ChangeWriter, ChunkDigest, ChunkWriter, Compressor, Dictionary, Lsn, decode_changes,
    decode_chunk, hex, pack, split_into_parts, train_dictionary,
};

use super::Vector;
use crate::json;

const DICTIONARY: &str = "dictionary";

/// A small dictionary, the same every time.
pub fn dictionary() -> Dictionary {
    let rows: Vec<String> = (0..1500u32)
        .map(|i| {
            format!("user{}@mail{}.example.org country-{} plan-{}", i * 7919, i % 7, i % 17, i % 3)
        })
        .collect();
    let sizes: Vec<usize> = rows.iter().map(String::len).collect();
    train_dictionary(rows.concat().as_bytes(), &sizes, 4096).expect("a dictionary")
}

pub fn vectors() -> Vec<Vector> {
    let dictionary = dictionary();
    let mut vectors = vec![Vector {
        name: DICTIONARY.to_owned(),
        kind: "dictionary",
        headers: json!({ "Wg-Sha256": dictionary.sha256() }),
        parts: vec![dictionary.bytes().to_vec()],
        columns: None,
        dictionary: None,
        expected: json!({ "id": dictionary.id(), "sha256": dictionary.sha256() }),
    }];
    vectors.extend([
        changes("changes_operations", 3, operations()),
        changes("changes_values", 1, values()),
        changes("changes_none", 2, vec![]),
        chunk("chunk_plain_and_delta", 4, chunk_body()),
        chunk("chunk_empty", 2, chunk_of(&[false, true], 0, |_, _| ())),
        chunk("chunk_no_columns", 0, chunk_of(&[], 3, |_, _| ())),
    ]);
    let compressed: Vec<Vector> = vectors[1..4]
        .iter()
        .flat_map(|plain| [compress(plain, None), compress(plain, Some(&dictionary))])
        .collect();
    vectors.extend(compressed);
    vectors.push(compress(&chunk("chunk", 4, chunk_body()), Some(&dictionary)));
    vectors.push(compress(&changes("changes_long", 1, long()), None));
    vectors.push(in_parts(&compress(&changes("changes", 1, large()), None)));
    vectors.extend(refused(&dictionary));
    vectors
}

fn changes(name: &str, columns: usize, body: Vec<u8>) -> Vector {
    let decoded = decode_changes(&body, columns, &Caps::default()).expect("our own body");
    let expected = decoded.iter().map(json::change).collect();
    vector(name, "changes", columns, body, expected)
}

fn chunk(name: &str, columns: usize, body: Vec<u8>) -> Vector {
    let rows = json::chunk(decode_chunk(&body, columns, &Caps::default()).expect("our own chunk"));
    let sha256 = hex::encode(&ChunkDigest::of(&body));
    vector(name, "chunk", columns, body, json!({ "rows": rows, "sha256": sha256 }))
}

fn vector(name: &str, kind: &'static str, columns: usize, body: Vec<u8>, expected: Json) -> Vector {
    Vector {
        name: name.to_owned(),
        kind,
        headers: json!({ "Wg-Schema": "3" }),
        parts: vec![body],
        columns: Some(columns),
        dictionary: None,
        expected,
    }
}

fn compress(plain: &Vector, dictionary: Option<&Dictionary>) -> Vector {
    let mut frame = vec![];
    Compressor::new(3, dictionary)
        .and_then(|mut c| c.compress(&plain.parts[0], &mut frame))
        .expect("a frame");
    let mut vector = plain.clone();
    vector.name += if dictionary.is_some() { "_zstd_dictionary" } else { "_zstd" };
    vector.headers["Content-Encoding"] = json!("zstd");
    if dictionary.is_some() {
        vector.headers["Wg-Dict"] = json!("users_dict@7");
        vector.dictionary = Some(DICTIONARY.to_owned());
    }
    vector.parts = vec![frame];
    vector
}

fn in_parts(whole: &Vector) -> Vector {
    let parts = split_into_parts(&whole.parts[0], whole.parts[0].len() / 3 + 1)
        .map(|(_, piece)| piece.to_vec())
        .collect();
    Vector { name: format!("{}_in_parts", whole.name), parts, ..whole.clone() }
}

/// Two transactions with every operation, with and without optional parts.
fn operations() -> Vec<u8> {
    let mut writer = ChangeWriter::default();
    let row = |out: &mut Vec<u8>, id: i64, text: Option<&str>| {
        pack::array(out, 3);
        pack::int(out, id);
        match text {
            Some(text) => pack::str(out, text),
            None => pack::nil(out),
        }
        pack::bool(out, true);
    };
    let key = |out: &mut Vec<u8>, id: i64| {
        pack::array(out, 1);
        pack::int(out, id);
    };
    writer.transaction(Lsn(0x16_B374_D848), 4_294_967_295, 1_795_366_298_123_456);
    writer.insert(1);
    row(&mut writer.out, 1, Some("new"));
    writer.update(2, false, false);
    row(&mut writer.out, 1, None);
    writer.update(3, true, false);
    row(&mut writer.out, 1, None);
    pack::array(&mut writer.out, 1);
    pack::uint(&mut writer.out, 1);
    writer.update(4, false, true);
    row(&mut writer.out, 2, Some("another key"));
    pack::nil(&mut writer.out);
    key(&mut writer.out, 1);
    writer.transaction(Lsn(0x16_B374_D900), 7, -1);
    writer.update(1, true, true);
    row(&mut writer.out, 3, None);
    pack::array(&mut writer.out, 2);
    pack::uint(&mut writer.out, 1);
    pack::uint(&mut writer.out, 2);
    key(&mut writer.out, 2);
    writer.delete(300);
    key(&mut writer.out, 3);
    writer.truncate(70_000);
    writer.out
}

/// Values on both sides of each change of MessagePack's integer form.
const INTS: [i64; 21] = [
    0,
    1,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    4_294_967_295,
    4_294_967_296,
    i64::MAX,
    -1,
    -32,
    -33,
    -128,
    -129,
    -32_768,
    -32_769,
    -2_147_483_648,
    -2_147_483_649,
    i64::MIN,
];

/// One insert for each value.
fn values() -> Vec<u8> {
    let mut writer = ChangeWriter::default();
    writer.transaction(Lsn(1), 1, 0);
    let texts = ["", "a", "é", "日本語 🦀", "quote \" backslash \\ newline \n nul-free"];
    let lengths = [31, 32, 255, 256].map(|len| "x".repeat(len));
    let mut cells: Vec<Vec<u8>> = vec![];
    let mut cell = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = vec![];
        write(&mut out);
        cells.push(out);
    };
    cell(&|out| pack::nil(out));
    cell(&|out| pack::bool(out, false));
    cell(&|out| pack::bool(out, true));
    INTS.iter().for_each(|&i| cell(&|out| pack::int(out, i)));
    for f in [0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        cell(&|out| pack::f64_bits(out, f.to_be_bytes()));
        cell(&|out| pack::f32_bits(out, (f as f32).to_be_bytes()));
    }
    texts.iter().for_each(|text| cell(&|out| pack::str(out, text)));
    lengths.iter().for_each(|text| cell(&|out| pack::str(out, text)));
    for len in [0, 1, 16, 255, 256] {
        cell(&|out| pack::bin(out, &(0..len).map(|i| i as u8).collect::<Vec<_>>()));
    }
    for len in [0, 15, 16] {
        cell(&|out| {
            pack::array(out, len);
            (0..len).for_each(|i| pack::int(out, i as i64 % 3));
        });
    }
    cell(&|out| {
        pack::array(out, 2);
        for item in ["a", "b"] {
            pack::array(out, 2);
            pack::str(out, item);
            pack::nil(out);
        }
    });
    cell(&|out| {
        pack::map(out, 2);
        pack::str(out, "street");
        pack::str(out, "Main Street");
        pack::str(out, "numbers");
        pack::array(out, 1);
        pack::int(out, 5);
    });
    for (n, cell) in cells.iter().enumerate() {
        writer.insert(n as u32 + 1);
        pack::array(&mut writer.out, 1);
        writer.out.extend_from_slice(cell);
    }
    writer.out
}

/// Values with lengths of 32 bits.
fn long() -> Vec<u8> {
    let mut writer = ChangeWriter::default();
    writer.transaction(Lsn(2), 2, 0);
    for (n, len) in [65_535, 65_536].into_iter().enumerate() {
        writer.insert(n as u32 + 1);
        pack::array(&mut writer.out, 1);
        pack::array(&mut writer.out, 3);
        pack::str(&mut writer.out, &"x".repeat(len));
        pack::bin(&mut writer.out, &vec![0; len]);
        pack::array(&mut writer.out, len);
        (0..len).for_each(|_| pack::int(&mut writer.out, 7));
    }
    writer.out
}

/// A value that does not compress.
fn large() -> Vec<u8> {
    let mut writer = ChangeWriter::default();
    writer.transaction(Lsn(2), 2, 0);
    writer.insert(1);
    pack::array(&mut writer.out, 1);
    let mut state = 1u64;
    let noise = (0..5000).map(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    pack::bin(&mut writer.out, &noise.collect::<Vec<_>>());
    writer.out
}

fn chunk_of(delta: &[bool], rows: usize, write: impl Fn(&mut ChunkWriter, usize)) -> Vec<u8> {
    let mut writer = ChunkWriter::new(delta);
    for row in 0..rows {
        write(&mut writer, row);
        writer.end_row();
    }
    let mut body = vec![];
    writer.finish(&mut body);
    body
}

/// Identity, time with infinities and NULLs, text, and differences that overflow.
fn chunk_body() -> Vec<u8> {
    chunk_of(&[true, true, false, true], 40, |writer, row| {
        writer.columns[0].int(1000 + row as i64);
        match row % 7 {
            3 => pack::str(&mut writer.columns[1].out, "infinity"),
            5 => pack::nil(&mut writer.columns[1].out),
            _ => writer.columns[1].int(1_795_366_298_000_000 + (row as i64) * 1_000_003),
        }
        match row % 5 {
            4 => pack::nil(&mut writer.columns[2].out),
            _ => pack::str(
                &mut writer.columns[2].out,
                &format!("user{row}@mail1.example.org plan-{}", row % 3),
            ),
        }
        writer.columns[3].int([i64::MIN, i64::MAX, 0, -1][row % 4]);
    })
}

/// Bodies that a reader must refuse.
fn refused(dictionary: &Dictionary) -> Vec<Vector> {
    let with = |name: &str, of: &Vector, why: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut vector = of.clone();
        vector.name = format!("refused_{name}");
        change(&mut vector.parts[0]);
        vector.expected = json!({ "refused": why });
        vector
    };
    let plain = changes("", 3, operations());
    let framed = compress(&plain, Some(dictionary));
    let mut without_dictionary = framed.clone();
    without_dictionary.dictionary = None;
    vec![
        with("cut_short", &plain, "the body ends in the middle of a change", &|body| {
            body.pop();
        }),
        with(
            "checksum",
            &compress(&changes("", 1, large()), None),
            "the content does not match its checksum",
            &|frame| {
                let at = frame.len() / 2;
                frame[at] ^= 1;
            },
        ),
        with("dictionary_missing", &without_dictionary, "the frame needs a dictionary", &|_| ()),
        with("array_too_long", &plain, "an array is longer than the body", &|body| {
            *body = vec![0xdd, 0xff, 0xff, 0xff, 0xff];
        }),
    ]
}
