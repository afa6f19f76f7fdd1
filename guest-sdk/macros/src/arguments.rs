//! The arguments of `#[transform(…)]`: the columns to hide, replace and add.
//!
//! This module does not know whether the table has them. The guest checks it when it is planned.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitStr, Result, Token, parenthesized};

/// `hide(…), replace(…), add(…), never_drops`
#[derive(Default)]
pub struct TransformArgs {
    pub hides: Vec<LitStr>,
    pub replaces: Vec<WrittenColumn>,
    pub adds: Vec<WrittenColumn>,
    pub never_drops: bool,
}

/// `"column" [as name] [, "type"] [, nullable | not_null]`
pub struct WrittenColumn {
    pub column: LitStr,
    /// The name of the method that sets the column.
    pub setter: Ident,
    /// The Postgres type and its marker in `walgate_guest::output::types`.
    pub type_name: Option<(LitStr, Ident)>,
    pub nullable: Option<bool>,
}

impl Parse for TransformArgs {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = TransformArgs::default();
        while !input.is_empty() {
            arguments.parse_item(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        arguments.check_unique()?;
        Ok(arguments)
    }
}

impl TransformArgs {
    fn parse_item(&mut self, input: ParseStream<'_>) -> Result<()> {
        let word = input.parse::<Ident>()?;
        if word == "never_drops" {
            self.never_drops = true;
            return Ok(());
        }
        let arguments;
        match word.to_string().as_str() {
            "hide" => {
                parenthesized!(arguments in input);
                self.hides.extend(Punctuated::<LitStr, Token![,]>::parse_terminated(&arguments)?);
            }
            "replace" => {
                parenthesized!(arguments in input);
                self.replaces.push(arguments.parse()?);
            }
            "add" => {
                parenthesized!(arguments in input);
                let added = arguments.parse::<WrittenColumn>()?;
                if added.type_name.is_none() {
                    let column = added.column.value();
                    let message =
                        format!("name the type of the column, as in add(\"{column}\", \"text\")");
                    return Err(Error::new_spanned(&added.column, message));
                }
                self.adds.push(added);
            }
            _ => {
                let message = "expected hide(\"column\", …), replace(\"column\"), replace(\"column\", \"type\"), add(\"column\", \"type\") or never_drops";
                return Err(Error::new_spanned(word, message));
            }
        }
        Ok(())
    }

    pub fn written(&self) -> impl Iterator<Item = &WrittenColumn> {
        self.replaces.iter().chain(&self.adds)
    }

    /// Refuses columns and methods that occur twice.
    fn check_unique(&self) -> Result<()> {
        let mut columns = std::collections::HashSet::new();
        for column in self.hides.iter().chain(self.written().map(|written| &written.column)) {
            if !columns.insert(column.value()) {
                let message = "this column is hidden, replaced or added more than once";
                return Err(Error::new_spanned(column, message));
            }
        }
        let mut setters = std::collections::HashSet::new();
        for written in self.written() {
            if !setters.insert(written.setter.to_string()) {
                let message = format!(
                    "another column has the method {} already: give this one a name of its own with `as`",
                    written.setter
                );
                return Err(Error::new_spanned(&written.column, message));
            }
        }
        Ok(())
    }
}

impl Parse for WrittenColumn {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let column = input.parse::<LitStr>()?;
        let setter = if input.peek(Token![as]) {
            input.parse::<Token![as]>()?;
            input.parse::<Ident>()?
        } else {
            setter_name(&column)?
        };
        let mut written = WrittenColumn { column, setter, type_name: None, nullable: None };
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.peek(LitStr) {
                let type_name = input.parse::<LitStr>()?;
                let marker = marker_type(&type_name)?;
                written.type_name = Some((type_name, marker));
            } else if !input.is_empty() {
                written.nullable = Some(parse_nullable(&input.parse()?)?);
            }
        }
        Ok(written)
    }
}

fn parse_nullable(word: &Ident) -> Result<bool> {
    match word.to_string().as_str() {
        "nullable" => Ok(true),
        "not_null" => Ok(false),
        _ => Err(Error::new_spanned(word, "expected a type in quotes, `nullable` or `not_null`")),
    }
}

fn setter_name(column: &LitStr) -> Result<Ident> {
    let name = column.value();
    if let Ok(ident) = syn::parse_str::<Ident>(&name) {
        return Ok(Ident::new(&ident.to_string(), column.span()));
    }
    let raw = format!("r#{name}");
    if syn::parse_str::<Ident>(&raw).is_ok() {
        return Ok(Ident::new_raw(&name, column.span()));
    }
    let message = format!(
        "{name:?} cannot be the name of a method: give it one, as in replace({name:?} as other_name)"
    );
    Err(Error::new_spanned(column, message))
}

fn marker_type(type_name: &LitStr) -> Result<Ident> {
    let marker = match type_name.value().as_str() {
        "bool" | "boolean" => "Bool",
        "int2" | "smallint" => "Int2",
        "int4" | "integer" => "Int4",
        "int8" | "bigint" => "Int8",
        "float4" | "real" => "Float4",
        "float8" | "double precision" => "Float8",
        "numeric" => "Numeric",
        "text" => "Text",
        "bytea" => "Bytea",
        "uuid" => "Uuid",
        "json" | "jsonb" => "Json",
        "timestamptz"
        | "timestamp with time zone"
        | "timestamp"
        | "timestamp without time zone" => "Timestamp",
        "date" => "Date",
        "time" | "time without time zone" => "Time",
        other => {
            let message = format!(
                "{other} is not a type that can be written. These are: bool, int2, int4, int8, float4, float8, numeric, text, \
                 bytea, uuid, json, jsonb, timestamptz, timestamp, date, time; without modifiers. (Several columns are \
                 replaced by several replace(…).)"
            );
            return Err(Error::new_spanned(type_name, message));
        }
    };
    Ok(Ident::new(marker, Span::call_site()))
}
