//! Checks whether a written value fits its column, with the messages of the gateway.

use crate::fit::{self, Misfit};
use crate::{Output, Table, Type};

use super::Value;

pub fn check_value(table: &Table, output: &Output, value: &Value) -> Result<(), String> {
    let own = table.find(&output.column);
    let ty = match output.type_name.as_str() {
        "" => own.and_then(|own| Type::of_replaced(&own.type_name)),
        name => Type::parse(name),
    };
    // Consumers find rows by the key, so it cannot be NULL.
    let nullable = output.nullable && !own.is_some_and(|own| own.key);
    let Some(ty) = ty else { return Ok(()) };
    let fits = match value {
        Value::Null if !nullable => Err(Misfit::Null),
        Value::Integer(n) => fit::check_integer(ty, *n),
        Value::Timestamp(at) => fit::check_integer(ty, at.0),
        Value::Date(day) => fit::check_integer(ty, day.0),
        Value::Time(at) => fit::check_integer(ty, at.0),
        Value::Float(f) => fit::check_float(ty, *f),
        Value::Text(text) => fit::check_text(ty, text),
        _ => Ok(()),
    };
    fits.map_err(|misfit| {
        format!("its value for column {} ({}) {misfit}", output.column, ty.name())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Date, Time, Timestamp};

    #[test]
    fn what_the_gateway_refuses_is_refused() {
        let table = Table::new("t").key("id", "bigint").nullable("n", "numeric(10,2)");
        let check = |column: &str, type_name: &str, written: Value| {
            let output =
                Output { column: column.into(), type_name: type_name.into(), nullable: true };
            check_value(&table, &output, &written).err()
        };
        let long = "9".repeat(131_073);
        for (type_name, written) in [
            ("numeric", "007".into()),
            ("numeric", "1e5".into()),
            ("numeric", long.as_str().into()),
            ("jsonb", r#""\u0000""#.into()),
            ("json", "{".into()),
            ("text", "a\0b".into()),
            ("int2", 40_000.into()),
            ("int4", (1i64 << 31).into()),
            ("float4", 1e300.into()),
            ("date", Value::Date(Date(1 << 40))),
            ("time", Value::Time(Time(-1))),
            ("timestamptz", Value::Timestamp(Timestamp(i64::MIN / 2))),
        ] {
            assert!(check("x", type_name, written.clone()).is_some(), "{type_name} {written:?}");
        }
        for (type_name, written) in [
            ("numeric", "-0.50".into()),
            ("jsonb", r#""\\u0000""#.into()),
            ("json", r#""\u0000""#.into()),
            ("float4", f64::INFINITY.into()),
            ("date", Value::Date(Date(i64::MIN))),
            ("timestamp", Value::Timestamp(Timestamp(i64::MAX))),
            ("time", Value::Time(Time(86_400_000_000))),
            ("int8", i64::MIN.into()),
        ] {
            assert_eq!(check("x", type_name, written), None, "{type_name}");
        }
        let own = check("n", "", "007".into());
        let said = "its value for column n (numeric) is not a number as Postgres prints it (12.50, -3, NaN, Infinity)";
        assert_eq!(own.as_deref(), Some(said));
        assert!(check("id", "int8", Value::Null).is_some_and(|error| error.contains("is null")));
    }
}
