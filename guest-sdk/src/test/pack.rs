//! Converts JSON to MessagePack and back, for arrays and composites in tests.

use serde_json::Value as Json;

use crate::{Kind, PackedValue, Uuid};

use super::parse;

/// Converts JSON to MessagePack. Strings become values of the kind `element`, where they can.
pub fn pack(json: &Json, element: Kind) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, json, element);
    out
}

fn put(out: &mut Vec<u8>, json: &Json, element: Kind) {
    match json {
        Json::String(text) if put_as(out, text, element).is_some() => {}
        Json::Null => out.push(0xc0),
        Json::Bool(b) => out.push(if *b { 0xc3 } else { 0xc2 }),
        Json::Number(number) => match number.as_i64() {
            Some(int) => put_int(out, int),
            None => {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap_or(f64::NAN).to_be_bytes());
            }
        },
        Json::String(text) => {
            put_head(out, text.len(), 0xa0, 32, [Some(0xd9), Some(0xda), Some(0xdb)]);
            out.extend(text.as_bytes());
        }
        Json::Array(elements) => {
            put_head(out, elements.len(), 0x90, 16, [None, Some(0xdc), Some(0xdd)]);
            elements.iter().for_each(|json| put(out, json, element));
        }
        Json::Object(members) => {
            put_head(out, members.len(), 0x80, 16, [None, Some(0xde), Some(0xdf)]);
            for (name, value) in members {
                put(out, &Json::from(name.as_str()), Kind::Text);
                put(out, value, element);
            }
        }
    }
}

/// Appends a string as a value of the kind `element`.
///
/// `None`, and nothing is appended, if it remains a string. Infinite times and times BC do.
fn put_as(out: &mut Vec<u8>, text: &str, element: Kind) -> Option<()> {
    let is_number = !text.ends_with("infinity") && !text.ends_with(" BC");
    let finite = |at: i64| is_number.then_some(at);
    match element {
        Kind::Bytes => put_bin(out, &parse::hex(text.strip_prefix("\\x")?)?),
        Kind::Uuid => put_bin(out, &text.parse::<Uuid>().ok()?.0),
        Kind::Timestamp => put_int(out, finite(parse::timestamp(text)?.0)?),
        Kind::Date => put_int(out, finite(parse::date(text)?.0)?),
        Kind::Time => put_int(out, parse::time(text)?.0),
        Kind::Float => {
            let float = text.parse::<f64>().ok()?;
            out.push(0xcb);
            out.extend(float.to_be_bytes());
        }
        Kind::Boolean | Kind::Integer | Kind::Text | Kind::Packed => return None,
    }
    Some(())
}

fn put_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, bytes.len(), 0, 0, [Some(0xc4), Some(0xc5), Some(0xc6)]);
    out.extend(bytes);
}

fn put_int(out: &mut Vec<u8>, int: i64) {
    if let Ok(small @ -32..=127) = i8::try_from(int) {
        return out.push(small as u8);
    }
    out.push(0xd3);
    out.extend(int.to_be_bytes());
}

/// Appends a length in the shortest form.
///
/// Below `small` it is part of the first byte. Otherwise it follows a marker, in one, two or four
/// bytes.
fn put_head(out: &mut Vec<u8>, len: usize, fix: u8, small: usize, markers: [Option<u8>; 3]) {
    if len < small {
        return out.push(fix | len as u8);
    }
    let len = len as u32;
    match markers {
        [Some(one), _, _] if len < 1 << 8 => out.extend([one, len as u8]),
        [_, Some(two), _] if len < 1 << 16 => {
            out.push(two);
            out.extend((len as u16).to_be_bytes());
        }
        [_, _, four] => {
            out.extend(four);
            out.extend(len.to_be_bytes());
        }
    }
}

/// Converts MessagePack to JSON.
pub fn unpack(value: &PackedValue<'_>) -> Json {
    match value {
        PackedValue::Nil => Json::Null,
        PackedValue::Bool(b) => Json::Bool(*b),
        PackedValue::Int(n) => Json::from(*n),
        PackedValue::Float(f) => Json::from(*f),
        PackedValue::Str(text) => (*text).into(),
        PackedValue::Bin(bytes) => parse::to_hex(bytes).into(),
        PackedValue::Array(array) => array.map(|element| unpack(&element)).collect(),
        PackedValue::Map(map) => {
            let name = |key: &PackedValue<'_>| {
                key.as_str().map_or_else(|| unpack(key).to_string(), str::to_owned)
            };
            Json::Object(map.map(|(key, value)| (name(&key), unpack(&value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Packed;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let long = "x".repeat(300);
        let many: Vec<i64> = (0..70_000).step_by(3).collect();
        for value in [
            json!(["a", null, [1, -33, 1.5, true]]),
            json!({"k": long, "l": {"m": []}}),
            json!(many),
        ] {
            let packed = pack(&value, Kind::Text);
            assert_eq!(unpack(&Packed(&packed).value().unwrap()), value);
        }
    }

    #[test]
    fn elements_are_what_the_wire_carries() {
        assert_eq!(pack(&json!(["\\x00ff"]), Kind::Bytes), [0x91, 0xc4, 2, 0, 0xff]);
        assert_eq!(pack(&json!(["1970-01-03", "infinity"]), Kind::Date)[..3], [0x92, 2, 0xa8]);
        assert_eq!(pack(&json!([["00:00:00.000001"]]), Kind::Time), [0x91, 0x91, 1]);
        assert_eq!(pack(&json!(["NaN"]), Kind::Float)[..2], [0x91, 0xcb]);
    }
}
