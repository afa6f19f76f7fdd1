//! Rows by column name and Rust type, for user-defined sinks.

use walgate_wire::{Column, Schema, Value};

use crate::{ValueKind, text};

/// A row with the names and types of its columns.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    columns: &'a [Column],
    values: &'a [Value<'a>],
}

/// The row has no such column, or its value has another type than requested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct RowError {
    column: String,
    reason: String,
}

impl<'a> Row<'a> {
    /// `values`: one for each column of the schema, in its order, as in an insert.
    pub fn new(schema: &'a Schema, values: &'a [Value<'a>]) -> Row<'a> {
        Row { columns: &schema.columns, values }
    }

    /// Reads a value by column name: `let email: Option<&str> = row.get("email")?;`
    ///
    /// # Errors
    /// There is no such column, or its value is of another type. NULL needs an `Option`.
    pub fn get<T: FromValue<'a>>(&self, name: &str) -> Result<T, RowError> {
        let error = |reason: String| RowError { column: name.to_owned(), reason };
        let place = self.columns.iter().zip(self.values).find(|(column, _)| column.name == name);
        let (column, value) = place.ok_or_else(|| error("there is no such column".to_owned()))?;
        T::from_value(column, value)
            .ok_or_else(|| error(format!("of type {}, holds {value:?}", column.type_name)))
    }

    /// The columns, in the order of the values.
    pub fn columns(&self) -> &'a [Column] {
        self.columns
    }

    /// The values, one for each column.
    pub fn values(&self) -> &'a [Value<'a>] {
        self.values
    }
}

/// A Rust type that a value can be read as.
pub trait FromValue<'a>: Sized {
    /// The value as this type; none if it is of another type.
    fn from_value(column: &Column, value: &'a Value<'a>) -> Option<Self>;
}

impl<'a> FromValue<'a> for &'a Value<'a> {
    fn from_value(_: &Column, value: &'a Value<'a>) -> Option<Self> {
        Some(value)
    }
}

impl<'a> FromValue<'a> for bool {
    fn from_value(_: &Column, value: &'a Value<'a>) -> Option<Self> {
        if let Value::Bool(b) = value { Some(*b) } else { None }
    }
}

/// Integers. Timestamps are microseconds since 1970, dates days since 1970, times microseconds
/// since midnight.
impl<'a> FromValue<'a> for i64 {
    fn from_value(_: &Column, value: &'a Value<'a>) -> Option<Self> {
        if let Value::Int(i) = value { Some(*i) } else { None }
    }
}

impl<'a> FromValue<'a> for i32 {
    fn from_value(column: &Column, value: &'a Value<'a>) -> Option<Self> {
        i32::try_from(i64::from_value(column, value)?).ok()
    }
}

impl<'a> FromValue<'a> for f64 {
    fn from_value(_: &Column, value: &'a Value<'a>) -> Option<Self> {
        match value {
            Value::F64(f) => Some(*f),
            Value::F32(f) => Some(f64::from(*f)),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    fn from_value(_: &Column, value: &'a Value<'a>) -> Option<Self> {
        if let Value::Str(s) = value { Some(s) } else { None }
    }
}

/// Text; also dates, times and UUIDs, as Postgres prints them.
impl<'a> FromValue<'a> for String {
    fn from_value(column: &Column, value: &'a Value<'a>) -> Option<Self> {
        Some(match (ValueKind::of_column(column), value) {
            (_, Value::Str(s)) => (*s).to_owned(),
            (ValueKind::Timestamptz, Value::Int(i)) => text::format_timestamptz(*i),
            (ValueKind::Timestamp, Value::Int(i)) => text::format_timestamp(*i),
            (ValueKind::Date, Value::Int(i)) => text::format_date(*i),
            (ValueKind::Time, Value::Int(i)) => text::format_time(*i),
            (ValueKind::Uuid, Value::Bin(b)) => return text::format_uuid(b),
            _ => return None,
        })
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    fn from_value(_: &Column, value: &'a Value<'a>) -> Option<Self> {
        if let Value::Bin(b) = value { Some(b) } else { None }
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    fn from_value(column: &Column, value: &'a Value<'a>) -> Option<Self> {
        if value.is_nil() { Some(None) } else { T::from_value(column, value).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::schema;

    #[test]
    fn rows_are_read_by_name_and_type() {
        let schema = schema(&[("id", 20), ("email", 25), ("born", 1082)]);
        let values = [Value::Int(7), Value::Nil, Value::Int(0)];
        let row = Row::new(&schema, &values);
        assert_eq!(row.get::<i64>("id"), Ok(7));
        assert_eq!(row.get::<Option<&str>>("email"), Ok(None));
        assert_eq!(row.get::<String>("born").unwrap(), "1970-01-01");
        assert!(row.get::<&str>("email").is_err());
        let missing = row.get::<i64>("age").unwrap_err().to_string();
        assert_eq!(missing, "column age: there is no such column");
    }
}
