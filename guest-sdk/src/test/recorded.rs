//! The first line of a file of recorded rows, which describes their table.
//!
//! `walgate guest record` writes it. Thanks to it neither `walgate guest test` nor a native test
//! needs a database.

use serde_json::{Map, Value as Json};

use crate::{Column, Kind, Table};

/// Whether a line describes a table, and not a change.
pub fn is_table_line(line: &str) -> bool {
    matches!(serde_json::from_str(line), Ok(Json::Object(line)) if line.contains_key("columns"))
}

/// Parses the description of a table.
///
/// ```
/// use walgate_guest::test::parse_table;
///
/// let line = r#"{"table":"public.users","old_rows":false,"parameters":{"region":"DE"},
///     "columns":[{"name":"id","type":"bigint","key":true,"nullable":false}]}"#;
/// assert_eq!(parse_table(line)?.columns[0].name, "id");
/// # Ok::<(), String>(())
/// ```
///
/// The default of `nullable` is true, that of `kind` follows from the type. Other members are for
/// the gateway and ignored here.
///
/// # Errors
/// If a member is missing or malformed.
pub fn parse_table(line: &str) -> Result<Table, String> {
    let json: Map<String, Json> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let name = json.get("table").and_then(Json::as_str);
    let columns = json.get("columns").and_then(Json::as_array);
    let (Some(name), Some(columns)) = (name, columns) else {
        return Err("the first line has to be the table, with table and columns, as `walgate guest record` writes it".into());
    };
    let mut table = Table::new(name);
    table.old_rows = read_flag(&json, "old_rows", false);
    for (name, value) in json.get("parameters").and_then(Json::as_object).into_iter().flatten() {
        let value = value.as_str().ok_or_else(|| format!("the parameter {name} is no string"))?;
        table = table.parameter(name, value);
    }
    for column in columns {
        table = table.with_column(parse_column(column)?);
    }
    Ok(table)
}

fn parse_column(json: &Json) -> Result<Column, String> {
    let text = |key: &str| json.get(key).and_then(Json::as_str);
    let (Some(name), Some(type_name)) = (text("name"), text("type")) else {
        return Err(format!("a column has name and type, {json} has not"));
    };
    let kind = match text("kind") {
        None => Kind::of_type(type_name),
        Some(kind) => Kind::ALL
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or_else(|| format!("column {name} is of kind {kind}, which there is not"))?,
    };
    let object = json.as_object().cloned().unwrap_or_default();
    Ok(Column {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        kind,
        nullable: read_flag(&object, "nullable", true),
        key: read_flag(&object, "key", false),
    })
}

fn read_flag(json: &Map<String, Json>, key: &str, otherwise: bool) -> bool {
    json.get(key).and_then(Json::as_bool).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read() {
        let line = r#"{"table":"public.t","old_rows":true,"parameters":{"region":"DE"},"columns":[
            {"name":"id","type":"bigint","nullable":false,"key":true,"oid":20},
            {"name":"place","type":"address","kind":"packed"}]}"#;
        let expected =
            Table::new("public.t").key("id", "bigint").old_rows().parameter("region", "DE");
        let place = Column {
            name: "place".into(),
            type_name: "address".into(),
            kind: Kind::Packed,
            nullable: true,
            key: false,
        };
        assert!(is_table_line(line) && !is_table_line(r#"{"op":"insert","new":{"columns":1}}"#));
        assert_eq!(parse_table(line).unwrap(), expected.with_column(place));
        for wrong in ["{}", r#"{"table":"t","columns":[{"name":"a"}]}"#, "no json"] {
            parse_table(wrong).unwrap_err();
        }
    }
}
