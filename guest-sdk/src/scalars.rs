//! The Rust types of values, and the columns that each can read.
//!
//! This module does not know the states of cells; `field` does.

use crate::batch::ColumnView;
use crate::field::{Fault, Scalar};
use crate::kind::base_type;
use crate::layout::{ColumnData, VarLenValues};
use crate::{Column, Date, Kind, Numeric, Packed, Time, Timestamp, Type, Uuid};

/// The text of a json or jsonb column, as Postgres prints it.
///
/// The text is valid JSON. Parse it with a library of your choice, or write it as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Json<'a>(pub &'a str);

/// Implements `Scalar` for integers that hold every value of the Postgres types that suit.
macro_rules! integers {
    ($($rust:ty, $wants:literal, where $suits:expr;)*) => {$(
        impl<'a> Scalar<'a> for $rust {
            type Data = &'a [[u8; 8]];
            const WANTS: &'static str = $wants;

            fn fits(column: &Column) -> bool {
                let suits: fn(&str) -> bool = $suits;
                column.kind == Kind::Integer && suits(&column.type_name)
            }

            fn open(column: &ColumnView<'a>) -> Option<Self::Data> {
                if let ColumnData::Integer(data) = column.data { Some(data) } else { None }
            }

            #[inline]
            fn value(data: &Self::Data, row: usize) -> Result<Self, Fault> {
                <$rust>::try_from(i64::from_le_bytes(data[row])).map_err(|_| Fault::Range)
            }
        }
    )*};
}

integers! {
    i16, "an i16 (a smallint)", where |name| Type::parse(name) == Some(Type::Int2);
    i32, "an i32 (an integer or smaller)", where |name| matches!(Type::parse(name), Some(Type::Int2 | Type::Int4));
    i64, "an i64 (any integer)", where any_type;
    u32, "a u32 (an oid)", where |name| name == "oid";
}

/// Implements `Scalar` for columns of one kind, if their Postgres type suits.
macro_rules! of_a_kind {
    ($($rust:ty, $wants:literal, $kind:ident where $suits:expr, $data:ty, |$d:ident, $row:ident| $value:expr;)*) => {$(
        impl<'a> Scalar<'a> for $rust {
            type Data = $data;
            const WANTS: &'static str = $wants;

            fn fits(column: &Column) -> bool {
                let suits: fn(&str) -> bool = $suits;
                column.kind == Kind::$kind && suits(&base_type(&column.type_name))
            }

            fn open(column: &ColumnView<'a>) -> Option<Self::Data> {
                if let ColumnData::$kind(data) = column.data { Some(data) } else { None }
            }

            #[inline]
            fn value($d: &Self::Data, $row: usize) -> Result<Self, Fault> {
                Ok($value)
            }
        }
    )*};
}

type Eights<'a> = &'a [[u8; 8]];
type Texts<'a> = VarLenValues<'a, str>;
type Blobs<'a> = VarLenValues<'a, [u8]>;

of_a_kind! {
    bool, "a bool", Boolean where any_type, &'a [u8], |d, row| d[row] != 0;
    f64, "an f64 (a real or double precision)", Float where any_type, Eights<'a>, |d, row| f64::from_le_bytes(d[row]);
    f32, "an f32 (a real)", Float where |name| Type::parse(name) == Some(Type::Float4), Eights<'a>, |d, row| f64::from_le_bytes(d[row]) as f32;
    &'a str, "a &str (what is carried as text)", Text where any_type, Texts<'a>, |d, row| d.get(row);
    Numeric<'a>, "a Numeric", Text where is_numeric, Texts<'a>, |d, row| Numeric(d.get(row));
    Json<'a>, "a Json (a json or jsonb)", Text where is_json, Texts<'a>, |d, row| Json(d.get(row));
    &'a [u8], "a &[u8] (a bytea)", Bytes where any_type, Blobs<'a>, |d, row| d.get(row);
    Packed<'a>, "a Packed (an array, composite, hstore or vector)", Packed where any_type, Blobs<'a>, |d, row| Packed(d.get(row));
    Uuid, "a Uuid", Uuid where any_type, &'a [[u8; 16]], |d, row| Uuid(d[row]);
    Timestamp, "a Timestamp", Timestamp where any_type, Eights<'a>, |d, row| Timestamp(i64::from_le_bytes(d[row]));
    Date, "a Date", Date where any_type, Eights<'a>, |d, row| Date(i64::from_le_bytes(d[row]));
    Time, "a Time", Time where any_type, Eights<'a>, |d, row| Time(i64::from_le_bytes(d[row]));
}

fn any_type(_: &str) -> bool {
    true
}

fn is_numeric(name: &str) -> bool {
    name == "money" || Type::parse(name) == Some(Type::Numeric)
}

fn is_json(name: &str) -> bool {
    matches!(Type::parse(name), Some(Type::Json | Type::Jsonb))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;

    fn fits<'a, T: Scalar<'a>>(type_name: &str) -> bool {
        T::fits(&Table::new("t").column("c", type_name).columns[0])
    }

    #[test]
    fn no_value_may_get_lost() {
        assert!(fits::<i64>("smallint") && fits::<i64>("oid"));
        assert!(fits::<i32>("smallint") && !fits::<i32>("bigint") && !fits::<i32>("oid"));
        assert!(fits::<i16>("int2") && !fits::<i16>("int4") && !fits::<i32>("int8"));
        assert!(fits::<u32>("oid") && !fits::<u32>("integer"));
        assert!(fits::<f64>("real") && fits::<f32>("real") && !fits::<f32>("double precision"));
    }

    #[test]
    fn kinds_of_text() {
        for text in ["text", "numeric(10,2)", "order_status", "inet", "jsonb"] {
            assert!(fits::<&str>(text), "{text}");
        }
        assert!(fits::<Numeric<'_>>("numeric(10,2)") && fits::<Numeric<'_>>("money"));
        for text in
            ["text", "character varying(3)", "order_status", "inet", "interval", "int4range"]
        {
            assert!(!fits::<Numeric<'_>>(text) && !fits::<Json<'_>>(text), "{text}");
        }
        assert!(fits::<Json<'_>>("jsonb") && !fits::<Numeric<'_>>("jsonb"));
        assert!(!fits::<&str>("bytea") && !fits::<bool>("text") && fits::<Packed<'_>>("text[]"));
    }
}
