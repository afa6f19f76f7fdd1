//! How values look in a copy that keeps them as they are on the wire, as the consumer in Python
//! does. Lists only types that `walgate replicate` stores in another form; without arrays of them.

use super::shape::Type;

const UUID: &str = "2950";
const DATE: &str = "1082";
const TIME: &str = "1083";
const TIMESTAMPS: [&str; 2] = ["1114", "1184"];

/// The expression to select at the source, in place of the column alone.
pub fn expression(oid: &str, column: &str) -> String {
    let counted = |number: &str| {
        format!(
            "case when isfinite({column}) and {column} >= '0001-01-01' then ({number})::bigint::text else {column}::text end"
        )
    };
    match oid {
        UUID => format!("decode(replace({column}::text, '-', ''), 'hex')"),
        DATE => counted(&format!("{column} - date '1970-01-01'")),
        TIME => format!("(extract(epoch from {column}) * 1000000)::bigint"),
        _ if TIMESTAMPS.contains(&oid) => {
            counted(&format!("extract(epoch from {column}) * 1000000"))
        }
        _ => column.to_owned(),
    }
}

/// The type of the source's answer to that expression.
pub fn ty(oid: &str, otherwise: Type) -> Type {
    match oid {
        UUID => Type::Bytes,
        DATE | TIME => Type::IntOrText,
        _ if TIMESTAMPS.contains(&oid) => Type::IntOrText,
        _ => otherwise,
    }
}
