//! Tests of single values: vectors that a real server made, and garbage.

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use walgate_wire::{Caps, Reader, Value};

use crate::encode::*;

/// Binary forms that a real server wrote, and the texts that it printed.
const VECTORS: &str = include_str!("vectors.txt");

fn array(element: Type) -> Type {
    Type { oid: 0, kind: Kind::Array(Box::new(element)) }
}

fn composite(fields: &[(&str, Type)]) -> Type {
    let fields = fields.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
    Type { oid: 16_600, kind: Kind::Composite { name: "c".into(), fields } }
}

fn item() -> Type {
    composite(&[
        ("id", Type::base(23)),
        ("name", Type::base(25)),
        ("price", Type::base(1700)),
        ("moods", array(Type { oid: 16_500, kind: Kind::Enum })),
        ("at", Type::base(1184)),
    ])
}

fn named(name: &str) -> Type {
    let rendered = |oid| Type { oid, kind: Kind::Rendered };
    match name {
        "bool" => Type::base(16),
        "bytea" => Type::base(17),
        "char" => Type::base(18),
        "name" => Type::base(19),
        "int8" => Type::base(20),
        "int2" => Type::base(21),
        "int4" => Type::base(23),
        "text" => Type::base(25),
        "oid" => Type::base(26),
        "json" => Type::base(114),
        "cidr" => rendered(650),
        "float4" => Type::base(700),
        "float8" => Type::base(701),
        "macaddr8" => rendered(774),
        "macaddr" => rendered(829),
        "inet" => rendered(869),
        "bpchar" => Type::base(1042),
        "date" => Type::base(1082),
        "time" => Type::base(1083),
        "timestamp" => Type::base(1114),
        "timestamptz" => Type::base(1184),
        "interval" => rendered(1186),
        "timetz" => rendered(1266),
        "varbit" => rendered(1562),
        "numeric" => Type::base(1700),
        "uuid" => Type::base(2950),
        "jsonb" => Type::base(3802),
        "int4[]" => array(Type::base(23)),
        "text[]" => array(Type::base(25)),
        "price[]" => array(Type::base(1700)),
        "mood[]" => array(Type { oid: 16_500, kind: Kind::Enum }),
        "hstore" => Type { oid: 16_400, kind: Kind::Hstore },
        "vector" => Type { oid: 16_401, kind: Kind::Vector },
        "item" => item(),
        "outerc" => composite(&[("first", item()), ("rest", array(item()))]),
        "tsrange" => rendered(3908),
        other => panic!("{other} has no type here"),
    }
}

const NAMES: &[&str] = &[
    "bool",
    "bytea",
    "char",
    "name",
    "int8",
    "int2",
    "int4",
    "text",
    "oid",
    "json",
    "cidr",
    "float4",
    "float8",
    "macaddr8",
    "macaddr",
    "inet",
    "bpchar",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "interval",
    "timetz",
    "varbit",
    "numeric",
    "uuid",
    "jsonb",
    "int4[]",
    "text[]",
    "price[]",
    "mood[]",
    "hstore",
    "vector",
    "item",
    "outerc",
    "tsrange",
];

fn unhex(text: &str) -> Vec<u8> {
    walgate_wire::hex::decode(text).unwrap()
}

fn to_json(value: &Value<'_>) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::F32(f) => json!(f),
        Value::F64(f) => json!(f),
        Value::Str(s) => json!(s),
        Value::Bin(bytes) => json!(format!("\\x{}", walgate_wire::hex::encode(bytes))),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(pairs) => Json::Object(
            pairs.iter().map(|(k, v)| (to_json(k).as_str().unwrap().into(), to_json(v))).collect(),
        ),
    }
}

fn packed(name: &str, bytes: &[u8]) -> Json {
    let (mut out, mut rendered) = (Vec::new(), Rendered::default());
    Packer::new(&named(name)).pack(bytes, &mut out, &mut rendered).unwrap();
    assert!(rendered.is_complete(), "{name} is left to the server");
    let mut reader = Reader::new(&out, &Caps::default());
    let value = to_json(&reader.value().unwrap());
    assert!(reader.is_empty());
    value
}

#[test]
fn values_are_what_the_server_says() {
    let mut seen = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.splitn(3, '|');
        let (name, hex, expected) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let expected: Json = serde_json::from_str(expected).unwrap();
        assert_eq!(packed(name, &unhex(hex)), expected, "{line}");
        seen += 1;
    }
    assert!(seen > 190);
}

#[test]
fn the_longest_numerics_are_written_in_full() {
    let large = packed("numeric", &unhex("00017fff0000000003e8"));
    assert_eq!(large, json!(format!("1{}", "0".repeat(131_071))));
    let small = packed("numeric", &unhex("0001f00000003fff000a"));
    assert_eq!(small, json!(format!("0.{}1", "0".repeat(16_382))));
}

#[test]
fn floats_keep_their_bits() {
    let (mut out, mut rendered) = (Vec::new(), Rendered::default());
    for bits in [f64::NAN.to_bits(), f64::INFINITY.to_bits(), (-0.0f64).to_bits()] {
        out.clear();
        Packer::Float8.pack(&bits.to_be_bytes(), &mut out, &mut rendered).unwrap();
        assert_eq!(out[1..], bits.to_be_bytes());
    }
}

#[test]
fn vectors_are_arrays_of_floats() {
    let bytes = [&[0, 2, 0, 0][..], &1.5f32.to_be_bytes(), &(-2f32).to_be_bytes()].concat();
    assert_eq!(packed("vector", &bytes), json!([1.5, -2.0]));
}

#[test]
fn what_the_server_prints_is_asked_for_once_and_then_packed() {
    let packer = Packer::new(&array(Type { oid: 3908, kind: Kind::Rendered }));
    let element = |value: &[u8]| [&(value.len() as u32).to_be_bytes()[..], value].concat();
    let head = [1u32, 0, 3908, 3, 1].map(u32::to_be_bytes).concat();
    let bytes = [head, element(b"aa"), element(b"b"), element(b"aa")].concat();
    let (mut out, mut rendered) = (Vec::new(), Rendered::default());
    assert!(packer.renders());
    packer.pack(&bytes, &mut out, &mut rendered).unwrap();
    assert!(!rendered.is_complete());
    let missing: Vec<(u32, Vec<Vec<u8>>)> = rendered
        .missing()
        .map(|(oid, values)| (oid, values.into_iter().map(<[u8]>::to_vec).collect()))
        .collect();
    assert_eq!(missing[0].1.len(), 2);
    for (oid, values) in missing {
        for value in values {
            let text = format!("<{}>", String::from_utf8_lossy(&value));
            rendered.insert(oid, &value, text);
        }
    }
    assert!(rendered.is_complete());
    out.clear();
    packer.pack(&bytes, &mut out, &mut rendered).unwrap();
    let value = to_json(&Reader::new(&out, &Caps::default()).value().unwrap());
    assert_eq!(value, json!(["<aa>", "<b>", "<aa>"]));
}

#[test]
fn a_composite_that_was_altered_is_noticed() {
    let packer = Packer::new(&composite(&[("a", Type::base(23))]));
    let pack = |fields: &[u32]| {
        let mut bytes = (fields.len() as u32).to_be_bytes().to_vec();
        fields.iter().for_each(|oid| bytes.extend([oid.to_be_bytes(), [0xff; 4]].concat()));
        packer.pack(&bytes, &mut Vec::new(), &mut Rendered::default())
    };
    assert_eq!(pack(&[23]), Ok(()));
    assert_eq!(pack(&[16_700]), Ok(()), "a domain, say");
    assert_eq!(pack(&[25]), Err(PackError::Altered));
    assert_eq!(pack(&[23, 23]), Err(PackError::Altered));
}

#[test]
fn array_dimensions_that_lie_allocate_nothing() {
    let header = |dimensions: &[u32]| {
        let mut ints = vec![dimensions.len() as u32, 0, 23];
        dimensions.iter().for_each(|&length| ints.extend([length, 1]));
        ints.into_iter().flat_map(u32::to_be_bytes).collect::<Vec<u8>>()
    };
    let packer = Packer::new(&named("int4[]"));
    for dimensions in [&[0x7fff_ffff][..], &[65_536, 65_536, 65_536, 65_536], &[2; 7]] {
        let mut out = Vec::new();
        let result = packer.pack(&header(dimensions), &mut out, &mut Rendered::default());
        assert_eq!(result, Err(PackError::BadArray));
        assert!(out.capacity() < 64);
    }
}

proptest! {
    /// Whatever the bytes: an error, or exactly one value.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for name in NAMES {
            one_value_or_an_error(name, &bytes);
        }
    }

    /// Real values with bytes changed, cut or added get further than arbitrary ones.
    #[test]
    fn damaged_values_never_panic(line in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8, cut in 0usize..3) {
        let lines: Vec<&str> = VECTORS.lines().filter(|line| !line.starts_with('#')).collect();
        let (name, rest) = lines[line.index(lines.len())].split_once('|').unwrap();
        let mut bytes = unhex(rest.split_once('|').unwrap().0);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            match cut {
                0 => bytes.truncate(at),
                1 => bytes[at] = byte,
                _ => bytes.insert(at, byte),
            }
        }
        one_value_or_an_error(name, &bytes);
    }
}

fn one_value_or_an_error(name: &str, bytes: &[u8]) {
    let mut out = Vec::new();
    if Packer::new(&named(name)).pack(bytes, &mut out, &mut Rendered::default()).is_err() {
        return;
    }
    let mut reader = Reader::new(&out, &Caps::default());
    match reader.value() {
        Ok(_) => assert!(reader.is_empty(), "{name}: more than one value"),
        Err(error) => assert_eq!(error.what, "a string is not UTF-8", "{name}"),
    }
}
