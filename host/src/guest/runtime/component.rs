//! Checks the exports and imports of a wasm file before it is compiled.
//!
//! The result is a component of this interface, or an error that names what is wrong with the file.
//! Pure: bytes in, bytes out. Nothing is run or compiled here.

use std::borrow::Cow;

use wasmparser::{Encoding, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../../../guest-sdk/wit/guest.wit");
const WIT_PATH: &str = "guest.wit";
const WORLD: &str = "guest";

/// The interface that guests export.
pub const TRANSFORM: &str = "walgate:guest/transform@1.0.0";
/// The interface that they may import.
pub const HOST: &str = "walgate:guest/host@1.0.0";
/// Types alone; some toolchains import them beside the others.
const TYPES: &str = "walgate:guest/types@1.0.0";
/// Imports that components of some toolchains cannot do without. They exist, and calling one traps.
const STUBBED: &str = "wasi:";

/// A file that is not a guest.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    #[error("it is not WebAssembly: {0}; name the .wasm file that the build wrote")]
    NotWasm(String),
    #[error("it does not export {TRANSFORM}{}; build it with the crate walgate-guest or against guest.wit", describe_exports(.0))]
    NoTransform(Vec<String>),
    #[error(
        "it speaks {guest}, this gateway {host}: build it again with the SDK of this gateway's version"
    )]
    Version { guest: String, host: &'static str },
    #[error(
        "it imports {0}, which a guest does not get: only {HOST} is there. Build it for wasm32-unknown-unknown, \
         without code that needs files, clocks, randomness or a network"
    )]
    Import(String),
    #[error(
        "it cannot be made a component: {0}; build it again with the SDK of this gateway's version"
    )]
    Encode(String),
}

fn describe_exports(exports: &[String]) -> String {
    match exports {
        [] => String::new(),
        exports => format!(" but {}", exports.join(", ")),
    }
}

/// A component of this interface.
#[derive(Debug)]
pub struct GuestComponent<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// The name under which it exports [`TRANSFORM`]: the minor version may differ.
    pub transform: String,
    pub imports: Vec<String>,
    /// Imports of which calling one traps.
    pub stubbed: Vec<String>,
}

/// Checks a file; a core module becomes a component.
pub fn read_component(file: &[u8]) -> Result<GuestComponent<'_>, InterfaceError> {
    if Parser::is_component(file) {
        return check_component(Cow::Borrowed(file));
    }
    let names = Names::read(file)?;
    names.check_module()?;
    let encoded = encode_component(file, names.has_metadata);
    let encoded = encoded.map_err(|error| InterfaceError::Encode(format!("{error:#}")))?;
    check_component(Cow::Owned(encoded))
}

fn check_component(bytes: Cow<'_, [u8]>) -> Result<GuestComponent<'_>, InterfaceError> {
    let Names { imports, exports, .. } = Names::read(&bytes)?;
    let mut stubbed = vec![];
    for name in &imports {
        if name.starts_with(STUBBED) {
            stubbed.push(name.clone());
        } else {
            check_import(name)?;
        }
    }
    let transform = find_transform(&exports)?;
    Ok(GuestComponent { bytes, transform, imports, stubbed })
}

fn find_transform(exports: &[String]) -> Result<String, InterfaceError> {
    let ours = exports.iter().find(|name| package_of(name) == package_of(TRANSFORM));
    let ours = ours.ok_or_else(|| InterfaceError::NoTransform(exports.to_vec()))?;
    check_version(ours, TRANSFORM)?;
    Ok(ours.clone())
}

fn check_import(name: &str) -> Result<(), InterfaceError> {
    match [HOST, TYPES].into_iter().find(|known| package_of(known) == package_of(name)) {
        Some(known) => check_version(name, known),
        None => Err(InterfaceError::Import(name.to_owned())),
    }
}

/// The same major version.
fn check_version(guest: &str, host: &'static str) -> Result<(), InterfaceError> {
    let major = |name: &str| {
        let version = name.split_once('@').map_or("", |(_, version)| version);
        version.split('.').next().unwrap_or_default().to_owned()
    };
    if major(guest) == major(host) {
        return Ok(());
    }
    Err(InterfaceError::Version { guest: guest.to_owned(), host })
}

/// `walgate:guest/transform` of `walgate:guest/transform@1.0.0`.
fn package_of(name: &str) -> &str {
    name.split('@').next().unwrap_or_default()
}

/// Makes a component of a module. A module without the section of its interface gets ours.
fn encode_component(module: &[u8], has_metadata: bool) -> anyhow::Result<Vec<u8>> {
    let mut module = Cow::Borrowed(module);
    if !has_metadata {
        let mut resolve = Resolve::default();
        let package = resolve.push_str(WIT_PATH, WIT)?;
        let world = resolve.select_world(&[package], Some(WORLD))?;
        embed_component_metadata(module.to_mut(), &resolve, world, StringEncoding::UTF8)?;
    }
    ComponentEncoder::default().validate(true).module(&module)?.encode()
}

/// Names at the top level of a file.
#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
    has_metadata: bool,
}

impl Names {
    fn read(file: &[u8]) -> Result<Names, InterfaceError> {
        let not_wasm = |error: wasmparser::BinaryReaderError| {
            InterfaceError::NotWasm(error.message().to_owned())
        };
        let mut names = Names::default();
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(file) {
            match payload.map_err(not_wasm)? {
                Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => {
                    depth += 1;
                }
                Payload::End(_) => depth -= 1,
                payload if depth == 1 => names.add_section(payload).map_err(not_wasm)?,
                _ => {}
            }
        }
        Ok(names)
    }

    fn add_section(&mut self, payload: Payload<'_>) -> Result<(), wasmparser::BinaryReaderError> {
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.imports.push(import?.module.to_owned());
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    self.exports.push(export?.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    self.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    self.exports.push(export?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) => {
                self.has_metadata |= section.name().starts_with("component-type");
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks what the encoder would also refuse, for an error in terms of the interface.
    fn check_module(&self) -> Result<(), InterfaceError> {
        self.imports.iter().try_for_each(|name| check_import(name))?;
        let interfaces = self.exports.iter().filter_map(|name| name.split_once('#'));
        let mut interfaces: Vec<String> =
            interfaces.map(|(interface, _)| interface.to_owned()).collect();
        interfaces.retain(|name| !name.starts_with("cabi_post_"));
        interfaces.dedup();
        if interfaces.is_empty() && self.has_metadata {
            return Ok(());
        }
        find_transform(&interfaces).map(|_| ())
    }
}

#[cfg(test)]
#[path = "component_tests.rs"]
mod tests;
