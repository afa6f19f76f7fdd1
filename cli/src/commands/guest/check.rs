//! `walgate guest check`: describes a .wasm, checks whether this gateway accepts it, and shows its
//! plan for a table.

use std::{borrow::Cow, path::PathBuf, process::ExitCode};

use anyhow::Result;
use walgate_wire::{Column, TableName};

use crate::commands::guest::{Database, Settings, read, refused};
use walgate_host::{
    guest::{self, BoundGuest, OutputColumn, PlanAnswer},
    snapshot::live_rows,
};

/// Describe a .wasm, check whether the gateway accepts it, and show its plan for a table.
///
/// Loads it as the gateway does: interface and imports, size, name and version, SHA-256 (for
/// guest_sha256). With --table it gets that table's current shape, and the plan is checked. Exit
/// code 1 if it is refused.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    database: Database,
    /// Plan for this table, for example public.users
    #[arg(long, value_name = "TABLE")]
    table: Option<TableName>,
    /// The guest, for example users.wasm
    #[arg(value_name = "FILE")]
    guest: PathBuf,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let settings = args.settings.load()?;
    let bytes = read(&args.guest)?;
    let component = match guest::read_component(&bytes) {
        Ok(component) => component,
        Err(error) => return Ok(refused(&args.guest, &error.into())),
    };
    let module = match settings.engine()?.load(&bytes) {
        Ok(module) => module,
        Err(error) => return Ok(refused(&args.guest, &error.into())),
    };
    let description = module.description();
    let form = match component.bytes {
        Cow::Owned(_) => "core module",
        Cow::Borrowed(_) => "component",
    };
    let imports = match &component.imports[..] {
        [] => "nothing".to_owned(),
        imports => imports.join(", "),
    };
    println!("{}: {} {}", args.guest.display(), description.name, description.version);
    println!("  interface  {}, {form}", component.transform);
    println!("  imports    {imports}");
    if !component.stubbed.is_empty() {
        println!(
            "  of these   {} are there in name only: calling one is a trap",
            component.stubbed.join(", ")
        );
    }
    println!("  size       {} bytes, {} are allowed", bytes.len(), settings.limits().module_bytes);
    println!("  sha256     {}", description.sha256);
    let Some(name) = &args.table else { return Ok(ExitCode::SUCCESS) };
    let postgres = settings.postgres(&args.database)?;
    let table = live_rows::read_version(&postgres, name, settings.token(name)).await?;
    let parameters = settings.parameters(name, &Default::default());
    match module.bind(table, &parameters) {
        Ok(bound) => {
            print_plan(name, &bound);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(refused(&args.guest, &error.into())),
    }
}

fn print_plan(name: &TableName, bound: &BoundGuest) {
    let PlanAnswer { reads, hides, replaces, adds, filters } = bound.answer();
    let columns = &bound.output().schema.columns;
    let read = |(column, unchanged): &(String, bool)| {
        format!("{column}{}", if *unchanged { " (or unchanged)" } else { "" })
    };
    let written = |output: &OutputColumn| {
        columns.iter().find(|column| column.name == output.column).map_or_else(String::new, shown)
    };
    println!("{name}:");
    println!("  reads      {}", listed(reads.iter().map(read)));
    println!("  hides      {}", listed(hides.iter().cloned()));
    println!("  replaces   {}", listed(replaces.iter().map(written)));
    println!("  adds       {}", listed(adds.iter().map(written)));
    let drops = if *filters { "it may drop rows" } else { "it keeps every row" };
    println!("  filters    {drops}");
    println!("  leaves as  {}", listed(columns.iter().map(shown)));
}

fn shown(column: &Column) -> String {
    let not_null = if column.nullable { "" } else { " not null" };
    let key = if column.key { " key" } else { "" };
    format!("{} {}{not_null}{key}", column.name, column.type_name)
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
