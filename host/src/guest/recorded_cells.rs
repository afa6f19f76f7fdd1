//! Values of recorded rows → cells, which the gateway reads like those of Postgres.
//!
//! Pure. A value that travels as text becomes a text cell. Arrays and composites cannot hold text
//! cells: inside them [`plain_type`] turns each type that travels as text into `text`. A guest sees
//! the same values.

use walgate_guest::test::{Value, parse};
use walgate_wire::{Caps, Reader, Value as Wire};

use crate::{
    guest::{
        OutputType, OutputTypeExt,
        plan::{
            kinds::{self, Kind as Shown},
            output_types::GuestValue,
        },
    },
    rows::{Kind, Type, batch::Cell},
};

const OID: u32 = 26;
const TEXT: u32 = 25;

/// The type whose values [`write_cell`] makes.
pub fn plain_type(ty: &Type) -> Type {
    match &ty.kind {
        Kind::Array(_) | Kind::Composite { .. } => plain_inner_type(ty, false),
        _ => ty.clone(),
    }
}

/// `field`: in a composite, at any depth, where even times and bytes travel as text.
fn plain_inner_type(ty: &Type, field: bool) -> Type {
    let kind = match &ty.kind {
        Kind::Array(element) => Kind::Array(Box::new(plain_inner_type(element, field))),
        Kind::Composite { name, fields } => {
            let plain = |(name, ty): &(String, Type)| (name.clone(), plain_inner_type(ty, true));
            Kind::Composite { name: name.clone(), fields: fields.iter().map(plain).collect() }
        }
        Kind::Hstore | Kind::Vector => return ty.clone(),
        Kind::Base | Kind::Enum | Kind::Rendered => {
            return match kinds::kind_of(ty) {
                Shown::Boolean | Shown::Integer | Shown::Float => ty.clone(),
                Shown::Text => Type::base(TEXT),
                _ if field => Type::base(TEXT),
                _ => ty.clone(),
            };
        }
    };
    Type { oid: ty.oid, kind }
}

/// Appends the value's bytes. `ty` comes from [`plain_type`].
pub fn write_cell(ty: &Type, value: &Value, bytes: &mut Vec<u8>) -> Result<Cell, String> {
    let start = bytes.len();
    match value {
        Value::Null => return Ok(Cell::Null),
        Value::Unchanged => return Ok(Cell::Unchanged),
        Value::Boolean(b) => return write_scalar(ty, GuestValue::Boolean(*b), bytes),
        Value::Integer(n) => return write_scalar(ty, GuestValue::Integer(*n), bytes),
        Value::Float(f) => return write_scalar(ty, GuestValue::Float(*f), bytes),
        Value::Text(text) => return write_scalar(ty, GuestValue::Text(text), bytes),
        Value::Bytes(value) => return write_scalar(ty, GuestValue::Bytes(value), bytes),
        Value::Uuid(uuid) => return write_scalar(ty, GuestValue::Bytes(&uuid.0), bytes),
        Value::Timestamp(at) => return write_scalar(ty, GuestValue::Integer(at.0), bytes),
        Value::Date(day) => return write_scalar(ty, GuestValue::Integer(day.0), bytes),
        Value::Time(at) => return write_scalar(ty, GuestValue::Integer(at.0), bytes),
        Value::Packed(packed) => {
            let value = Reader::new(packed, &Caps::default()).value();
            write_nested(ty, &value.map_err(|e| e.to_string())?, bytes)?;
        }
    }
    Ok(Cell::Binary { start: start as u32, len: (bytes.len() - start) as u32 })
}

fn write_scalar(ty: &Type, value: GuestValue<'_>, bytes: &mut Vec<u8>) -> Result<Cell, String> {
    let start = bytes.len();
    match (OutputType::from_type(ty), value) {
        (Some(output), value) => {
            output.write_cell(&value, bytes).map_err(|misfit| format!("the value {misfit}"))
        }
        (None, GuestValue::Integer(n)) if ty.oid == OID => {
            let oid = u32::try_from(n).map_err(|_| format!("{n} is no oid"))?;
            bytes.extend(oid.to_be_bytes());
            Ok(Cell::Binary { start: start as u32, len: 4 })
        }
        (None, GuestValue::Text(text)) => {
            bytes.extend(text.as_bytes());
            Ok(Cell::Text { start: start as u32, len: text.len() as u32 })
        }
        (None, value) => Err(format!("{value:?} is no value of the type with oid {}", ty.oid)),
    }
}

/// In the binary form of `array_send`, `record_send` and their like.
fn write_nested(ty: &Type, value: &Wire<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    match (&ty.kind, value) {
        (Kind::Array(element), Wire::Array(items)) => write_array(element, items, out),
        (Kind::Composite { fields, .. }, Wire::Map(pairs)) => {
            put_u32(out, fields.len());
            let unknown = pairs.iter().find(|(key, _)| !fields.iter().any(|f| is_named(key, &f.0)));
            if let Some((key, _)) = unknown {
                return Err(format!("{key:?} is no field of the composite"));
            }
            for (name, ty) in fields {
                out.extend(ty.oid.to_be_bytes());
                let value =
                    pairs.iter().find(|(key, _)| is_named(key, name)).map(|(_, value)| value);
                write_field(ty, value.unwrap_or(&Wire::Nil), out)?;
            }
            Ok(())
        }
        (Kind::Hstore, Wire::Map(pairs)) => {
            put_u32(out, pairs.len());
            let text = Type::base(TEXT);
            pairs.iter().try_for_each(|(key, value)| {
                write_field(&text, key, out)?;
                write_field(&text, value, out)
            })
        }
        (Kind::Vector, Wire::Array(items)) => {
            let dimension = u16::try_from(items.len()).map_err(|e| e.to_string())?;
            out.extend(dimension.to_be_bytes());
            out.extend([0, 0]);
            items.iter().try_for_each(|item| {
                let float = as_float(item).ok_or("a vector holds numbers")? as f32;
                out.extend(float.to_be_bytes());
                Ok(())
            })
        }
        (Kind::Base, value) => write_leaf(ty, value, out),
        (kind, value) => Err(format!("{value:?} cannot be made a value of the type {kind:?}")),
    }
}

fn is_named(key: &Wire<'_>, name: &str) -> bool {
    matches!(key, Wire::Str(key) if *key == name)
}

/// Length and bytes.
fn write_field(ty: &Type, value: &Wire<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    if value.is_nil() {
        out.extend((-1i32).to_be_bytes());
        return Ok(());
    }
    let at = out.len();
    put_u32(out, 0);
    write_nested(ty, value, out)?;
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

fn write_array(element: &Type, items: &[Wire<'_>], out: &mut Vec<u8>) -> Result<(), String> {
    let mut lengths = vec![];
    let mut first = Some(items);
    while let Some(items) = first.filter(|items| !items.is_empty()) {
        lengths.push(items.len());
        let nests = !matches!(element.kind, Kind::Array(_) | Kind::Vector);
        first = match items.first() {
            Some(Wire::Array(inner)) if nests => Some(inner),
            _ => None,
        };
    }
    put_u32(out, lengths.len());
    put_u32(out, 1);
    out.extend(element.oid.to_be_bytes());
    for length in &lengths {
        put_u32(out, *length);
        put_u32(out, 1);
    }
    write_level(element, &lengths, items, out)
}

fn write_level(
    element: &Type,
    lengths: &[usize],
    items: &[Wire<'_>],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let Some((length, deeper)) = lengths.split_first() else { return Ok(()) };
    if items.len() != *length {
        return Err("its inner arrays differ in length".into());
    }
    items.iter().try_for_each(|item| match item {
        Wire::Array(items) if !deeper.is_empty() => write_level(element, deeper, items, out),
        item if deeper.is_empty() => write_field(element, item, out),
        _ => Err("its inner arrays differ in depth".into()),
    })
}

fn write_leaf(ty: &Type, value: &Wire<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let value = match (kinds::kind_of(ty), value) {
        (Shown::Boolean, Wire::Bool(b)) => GuestValue::Boolean(*b),
        (Shown::Text, Wire::Str(text)) => GuestValue::Text(text),
        (kind, Wire::Str(text)) => {
            let value =
                parse_text(kind, text).ok_or_else(|| format!("{text:?} in it is no {kind:?}"))?;
            return write_cell(ty, &value, out).map(|_| ());
        }
        (Shown::Float, value) => {
            GuestValue::Float(as_float(value).ok_or_else(|| format!("{value:?} is no number"))?)
        }
        (Shown::Bytes | Shown::Uuid, Wire::Bin(bytes)) => GuestValue::Bytes(bytes),
        (Shown::Integer | Shown::Timestamp | Shown::Date | Shown::Time, Wire::Int(int)) => {
            GuestValue::Integer(*int)
        }
        (kind, value) => return Err(format!("{value:?} in it is no {kind:?}")),
    };
    write_scalar(ty, value, out).map(|_| ())
}

/// The value of a string in JSON.
fn parse_text(kind: Shown, text: &str) -> Option<Value> {
    Some(match kind {
        Shown::Bytes => Value::Bytes(parse::hex(text.strip_prefix("\\x")?)?),
        Shown::Uuid => Value::Uuid(text.parse().ok()?),
        Shown::Timestamp => Value::Timestamp(parse::timestamp(text)?),
        Shown::Date => Value::Date(parse::date(text)?),
        Shown::Time => Value::Time(parse::time(text)?),
        Shown::Float => Value::Float(text.parse().ok()?),
        Shown::Boolean | Shown::Integer | Shown::Text | Shown::Packed => return None,
    })
}

fn as_float(value: &Wire<'_>) -> Option<f64> {
    match value {
        Wire::F64(f) => Some(*f),
        Wire::F32(f) => Some(f64::from(*f)),
        Wire::Int(i) => Some(*i as f64),
        _ => None,
    }
}

/// 32 bits: callers have checked the number against smaller limits.
fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend((number as u32).to_be_bytes());
}
