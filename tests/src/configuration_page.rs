//! The tables of `docs/CONFIGURATION.md`, made of the comments and defaults in `host/src/config`.
//! The page's other text is written by hand and stays as it is.

use std::{collections::HashMap, fs};

use serde_json::{Map, Value};

use crate::source_tree::workspace_root;

pub const PAGE: &str = "docs/CONFIGURATION.md";
const SOURCES: &str = "host/src/config";
const TABLE_HEAD: &str = "| Key | Type | Default | Meaning |\n|---|---|---|---|\n";
/// The struct of a whole file; its other fields are the sections.
const ROOT: &str = "RawConfig";

/// A field of a raw struct: a key, or a section.
struct Field {
    key: String,
    rust_type: String,
    meaning: String,
}

/// The raw structs with their fields, and the enums with their values.
#[derive(Default)]
struct Declarations {
    structs: HashMap<String, Vec<Field>>,
    enums: HashMap<String, Vec<String>>,
}

/// The page with all of its tables made again. Panics if a section has no heading.
pub fn render_page() -> String {
    let page = fs::read_to_string(workspace_root().join(PAGE)).expect(PAGE);
    let declarations = read_declarations();
    let defaults = walgate_host::config::default_values().expect("default values");
    let defaults = defaults.as_object().expect("a map of sections");
    let root = &declarations.structs[ROOT];
    assert_eq!(root.len(), defaults.len(), "keys in the source and keys with defaults");
    let (sections, keys): (Vec<&Field>, Vec<&Field>) =
        root.iter().partition(|field| raw_struct(&field.rust_type).is_some());
    let page = replace_table(&page, "## Top level", &render_table(&keys, defaults, &declarations));
    sections.iter().fold(page, |page, section| {
        let name = raw_struct(&section.rust_type).expect("a section");
        let fields: Vec<&Field> = declarations.structs[name].iter().collect();
        let (heading, values) = match &defaults[&section.key] {
            Value::Array(tables) => (format!("## `[[{}]]`", section.key), &tables[0]),
            values => (format!("## `[{}]`", section.key), values),
        };
        let values = values.as_object().expect("a map of keys");
        assert_eq!(fields.len(), values.len(), "keys of {name} and keys with defaults");
        replace_table(&page, &heading, &render_table(&fields, values, &declarations))
    })
}

/// The struct of a section's type: `RawNats`, `Vec<RawTable>`.
fn raw_struct(rust_type: &str) -> Option<&str> {
    let name = rust_type.trim_start_matches("Vec<").trim_end_matches('>');
    name.starts_with("Raw").then_some(name)
}

/// Replaces the first table after the heading.
fn replace_table(page: &str, heading: &str, table: &str) -> String {
    let missing = || panic!("{PAGE} has no table below the heading {heading}");
    let section = page.find(&format!("{heading}\n")).unwrap_or_else(missing);
    let start = section + page[section..].find(TABLE_HEAD).unwrap_or_else(missing);
    let rows = page[start..].find("\n\n").map_or(page.len(), |end| start + end + 1);
    format!("{}{table}{}", &page[..start], &page[rows..])
}

fn render_table(
    fields: &[&Field],
    defaults: &Map<String, Value>,
    declarations: &Declarations,
) -> String {
    let mut table = TABLE_HEAD.to_owned();
    for Field { key, rust_type, meaning } in fields {
        assert!(!meaning.is_empty(), "{key} has no comment");
        let type_name = describe_type(rust_type, declarations);
        let default = describe_default(&defaults[key], &type_name);
        let meaning = meaning.strip_suffix('.').unwrap_or(meaning);
        table += &format!("| `{key}` | {type_name} | {default} | {meaning} |\n");
    }
    table
}

fn describe_type(rust_type: &str, declarations: &Declarations) -> String {
    let name = rust_type.trim_start_matches("Option<").trim_end_matches('>');
    if let Some(values) = declarations.enums.get(name) {
        return values.join(", ");
    }
    let name = match name {
        "String" => "string",
        "PathBuf" => "path",
        "bool" => "boolean",
        "i32" | "u16" | "u32" | "u64" | "usize" => "integer",
        "ByteSize" => "size",
        "BTreeMap<String, String" => "map of strings",
        other => panic!("a key of type {other}: give the type a name for the page"),
    };
    name.to_owned()
}

fn describe_default(value: &Value, type_name: &str) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "required".to_owned(),
        // "10.0 GiB"
        Value::String(size) if type_name == "size" => format!("`\"{}\"`", size.replace(".0 ", "")),
        Value::Object(map) if map.is_empty() => "empty".to_owned(),
        value => format!("`{value}`"),
    }
}

/// Reads the declarations of all sections. The format is rustfmt's.
fn read_declarations() -> Declarations {
    let mut found = Declarations::default();
    for entry in fs::read_dir(workspace_root().join(SOURCES)).expect(SOURCES).flatten() {
        let text = fs::read_to_string(entry.path()).expect("a source file");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some((_, name)) = line.split_once("struct Raw") {
                let name = format!("Raw{}", name.trim_end_matches(" {"));
                found.structs.insert(name, read_fields(&mut lines));
            } else if let Some(name) = line.strip_prefix("pub enum ") {
                let values = read_variants(&mut lines);
                found.enums.insert(name.trim_end_matches(" {").to_owned(), values);
            }
        }
    }
    found
}

fn read_fields<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<Field> {
    let mut fields = vec![];
    let mut meaning: Vec<&str> = vec![];
    let mut renamed = None;
    for line in lines.map(str::trim).take_while(|line| *line != "}") {
        if let Some(comment) = line.strip_prefix("///") {
            meaning.push(comment.trim());
        } else if let Some(name) = line.strip_prefix("#[serde(rename = \"") {
            renamed = name.split('"').next();
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (name, rust_type) = field.split_once(": ").expect("a field and its type");
            fields.push(Field {
                key: renamed.take().unwrap_or(name).to_owned(),
                rust_type: rust_type.trim_end_matches(',').to_owned(),
                meaning: meaning.join(" "),
            });
            meaning.clear();
        }
    }
    fields
}

/// The values of an enum in kebab case, quoted as on the page.
fn read_variants<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut values = vec![];
    for line in lines.map(str::trim).take_while(|line| *line != "}") {
        let Some(variant) = line.strip_suffix(',') else { continue };
        let mut value = String::new();
        for c in variant.chars() {
            if c.is_uppercase() && !value.is_empty() {
                value.push('-');
            }
            value.extend(c.to_lowercase());
        }
        values.push(format!("`\"{value}\"`"));
    }
    values
}
