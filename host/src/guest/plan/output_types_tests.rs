//! Tests of output types: names, ranges, and that the packer reads what was written.

use super::*;
use crate::guest::plan::kinds;
use crate::rows::Rendered;
use walgate_wire::{Caps, Reader, Value as Wire};

fn packed(ty: OutputType, value: GuestValue<'_>) -> Result<Vec<u8>, Misfit> {
    let mut bytes = vec![9];
    let mut out = vec![];
    match ty.write_cell(&value, &mut bytes)? {
        Cell::Binary { start, len } => {
            let value = &bytes[start as usize..(start + len) as usize];
            let packer = Packer::new(&Type::base(ty.oid()));
            packer.pack(value, &mut out, &mut Rendered::default()).unwrap();
        }
        Cell::Text { start, len } => {
            walgate_wire::pack::str_bytes(&mut out, &bytes[start as usize..(start + len) as usize]);
        }
        other => panic!("{other:?}"),
    }
    Ok(out)
}

#[test]
fn the_table_of_types_is_in_order() {
    for (index, ty) in OutputType::ALL.into_iter().enumerate() {
        assert_eq!(ty as usize, index);
        assert_eq!(OutputType::from_type(&Type::base(ty.oid())), Some(ty));
        assert_eq!(kinds::kind_of(&Type::base(ty.oid())), ty.kind(), "{}", ty.name());
    }
    assert_eq!(OutputType::parse("varchar(20)"), None);
    assert_eq!(OutputType::from_type(&Type::base(1043)), Some(Text));
    assert_eq!(OutputType::from_type(&Type::base(26)), None);
    assert_eq!(OutputType::from_type(&Type { oid: 16_400, kind: crate::rows::Kind::Enum }), None);
}

#[test]
fn what_may_be_left_untouched() {
    assert!(Text.can_hold(&Type::base(1043)));
    assert!(Text.can_hold(&Type { oid: 16_400, kind: crate::rows::Kind::Enum }));
    assert!(Text.can_hold(&Type::base(114)));
    assert!(!Text.can_hold(&Type::base(3802)), "it has a version byte");
    assert!(!Text.can_hold(&Type::base(1700)));
    assert!(Numeric.can_hold(&Type::base(1700)));
    assert!(!Int8.can_hold(&Type::base(23)));
}

#[test]
fn values_reach_the_wire() {
    let wire = |ty, value| {
        let out = packed(ty, value).unwrap();
        let mut reader = Reader::new(&out, &Caps::default());
        format!("{:?}", reader.value().unwrap())
    };
    let expect = |value: Wire<'_>| format!("{value:?}");
    assert_eq!(wire(Bool, GuestValue::Boolean(true)), expect(Wire::Bool(true)));
    assert_eq!(wire(Int2, GuestValue::Integer(-5)), expect(Wire::Int(-5)));
    assert_eq!(wire(Int8, GuestValue::Integer(i64::MIN)), expect(Wire::Int(i64::MIN)));
    assert_eq!(wire(Timestamptz, GuestValue::Integer(1)), expect(Wire::Int(1)));
    assert_eq!(wire(Date, GuestValue::Integer(-3)), expect(Wire::Int(-3)));
    assert_eq!(wire(Time, GuestValue::Integer(86_400_000_000)), expect(Wire::Int(86_400_000_000)));
    assert_eq!(wire(Date, GuestValue::Integer(i64::MAX)), expect(Wire::Str("infinity")));
    assert_eq!(wire(Timestamp, GuestValue::Integer(i64::MIN)), expect(Wire::Str("-infinity")));
    assert_eq!(wire(Numeric, GuestValue::Text("12.50")), expect(Wire::Str("12.50")));
    assert_eq!(wire(Jsonb, GuestValue::Text("{\"a\":1}")), expect(Wire::Str("{\"a\":1}")));
    assert_eq!(wire(Uuid, GuestValue::Bytes(&[7; 16])), expect(Wire::Bin(&[7; 16])));
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |ty, value| packed(ty, value).unwrap_err();
    assert_eq!(refused(Int2, GuestValue::Integer(40_000)), Misfit::IntegerRange);
    assert_eq!(refused(Int4, GuestValue::Integer(1 << 31)), Misfit::IntegerRange);
    assert_eq!(refused(Float4, GuestValue::Float(1e300)), Misfit::FloatRange);
    assert!(packed(Float4, GuestValue::Float(f64::INFINITY)).is_ok());
    assert_eq!(refused(Text, GuestValue::Text("a\0b")), Misfit::Nul);
    assert_eq!(refused(Json, GuestValue::Text("{")), Misfit::NotJson);
    assert_eq!(refused(Json, GuestValue::Text("")), Misfit::NotJson);
    assert!(packed(Json, GuestValue::Text(r#""\u0000""#)).is_ok());
    assert_eq!(refused(Jsonb, GuestValue::Text(r#""\u0000""#)), Misfit::Nul);
    assert!(packed(Jsonb, GuestValue::Text(r#""\\u0000""#)).is_ok());
    assert_eq!(refused(Time, GuestValue::Integer(-1)), Misfit::TimeRange);
    assert_eq!(refused(Date, GuestValue::Integer(1 << 40)), Misfit::TimeRange);
    assert_eq!(refused(Timestamptz, GuestValue::Integer(i64::MIN / 2)), Misfit::TimeRange);
    for text in ["", "-", "1.", ".5", "+1", "1e5", " 1", "01", "1,0", "inf", "--1", "1.2.3"] {
        assert_eq!(refused(Numeric, GuestValue::Text(text)), Misfit::NotNumeric, "{text:?}");
    }
    for text in ["0", "-0.5", "0.00", "123456789012345678901234567890.1", "NaN", "-Infinity"] {
        assert!(packed(Numeric, GuestValue::Text(text)).is_ok(), "{text:?}");
    }
}
