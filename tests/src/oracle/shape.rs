//! A table's columns and types in the source's catalog, as far as copies render types differently.

use std::collections::{BTreeMap, BTreeSet};

use walgate_wire::TableName;

use super::{copy::CopyColumn, quoted};
use crate::Database;

/// How values of a type look in a copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Bool,
    Int,
    Float4,
    Float8,
    Bytes,
    Json,
    /// An exact decimal, without its currency.
    Money,
    /// The text that Postgres prints.
    Text,
    /// An integer if the value is one, else text.
    IntOrText,
    Array(Box<Type>),
    Composite(Vec<(String, Type)>),
    Hstore,
    /// The vector type of pgvector.
    Vector,
}

#[derive(Debug)]
pub struct Shape {
    /// The published columns: without some generated ones, and without those that a column list
    /// omits.
    columns: BTreeMap<String, Column>,
}

#[derive(Debug)]
struct Column {
    ty: Type,
    /// The OID of the type; for a domain, of its base type.
    oid: String,
}

impl Shape {
    pub async fn load(database: &Database, table: &TableName) -> Shape {
        let relation = quoted(table).replace('\'', "''");
        let sql = format!(
            "select attname, atttypid, coalesce(nullif(typbasetype, 0), atttypid),
               coalesce(attnum = any(r.prattrs::int2[]), attgenerated = ''
                 or attgenerated = 's' and to_jsonb(p)->>'pubgencols' is not distinct from 's')
             from pg_attribute join pg_type t on t.oid = atttypid
             left join pg_publication p on pubname = 'walgate'
             left join pg_publication_rel r on prpubid = p.oid and prrelid = attrelid
             where attrelid = '{relation}'::regclass and attnum > 0 and not attisdropped"
        );
        let mut columns = BTreeMap::new();
        for row in database.rows(&sql).await {
            let [name, oid, base, published] = row.map_texts();
            if published == "t" {
                let ty = load_type(database, &oid).await;
                columns.insert(name, Column { ty, oid: base });
            }
        }
        Shape { columns }
    }

    pub fn ty(&self, column: &str) -> Type {
        self.columns[column].ty.clone()
    }

    pub fn oid(&self, column: &str) -> &str {
        &self.columns[column].oid
    }

    /// The copy has every published column, and no other.
    pub fn check_columns(&self, found: &[CopyColumn]) -> Result<(), String> {
        let found: BTreeSet<_> = found.iter().map(|column| &column.name).collect();
        let expected: BTreeSet<_> = self.columns.keys().collect();
        if found == expected {
            return Ok(());
        }
        let missing: Vec<_> = expected.difference(&found).collect();
        let extra: Vec<_> = found.difference(&expected).collect();
        Err(format!("columns missing: {missing:?}, too many: {extra:?}"))
    }
}

fn load_type<'a>(
    database: &'a Database,
    oid: &'a str,
) -> std::pin::Pin<Box<dyn Future<Output = Type> + 'a>> {
    Box::pin(async move {
        let sql = format!(
            "select typname, typtype, typcategory, typelem, typbasetype, typrelid from pg_type where oid = {oid}"
        );
        let row = database.rows(&sql).await.remove(0);
        let [name, kind, category, element, base, relation] = row.map_texts();
        match (oid, kind.as_str(), name.as_str()) {
            ("16", ..) => Type::Bool,
            ("20" | "21" | "23" | "26", ..) => Type::Int,
            ("700", ..) => Type::Float4,
            ("701", ..) => Type::Float8,
            ("17", ..) => Type::Bytes,
            ("114" | "3802", ..) => Type::Json,
            ("790", ..) => Type::Money,
            (_, "d", _) => load_type(database, &base).await,
            (_, "c", _) => Type::Composite(load_fields(database, &relation).await),
            (_, _, "hstore") => Type::Hstore,
            (_, _, "vector") => Type::Vector,
            ("22" | "30", ..) => Type::Text,
            _ if category == "A" => Type::Array(Box::new(load_type(database, &element).await)),
            _ => Type::Text,
        }
    })
}

async fn load_fields(database: &Database, relation: &str) -> Vec<(String, Type)> {
    let sql = format!(
        "select attname, atttypid from pg_attribute
         where attrelid = {relation} and attnum > 0 and not attisdropped order by attnum"
    );
    let mut fields = vec![];
    for row in database.rows(&sql).await {
        let [name, oid] = row.map_texts();
        let ty = load_type(database, &oid).await;
        fields.push((name, ty));
    }
    fields
}

/// A catalog row without nulls.
trait Texts {
    fn map_texts<const N: usize>(self) -> [String; N];
}

impl Texts for Vec<Option<String>> {
    fn map_texts<const N: usize>(self) -> [String; N] {
        let texts: Vec<String> = self.into_iter().map(Option::unwrap_or_default).collect();
        texts.try_into().expect("as many columns as were asked for")
    }
}
