//! Licences and sources of all dependencies, checked against the lists in `deny.toml`. This part of
//! `cargo xtask audit` needs neither a tool nor a network.

use std::{path::Path, process::Command};

use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::Deserialize;
use spdx::{Expression, ParseMode};

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None`: a package of this workspace.
    source: Option<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn deny() -> Deny {
    Figment::from(Toml::file_exact(root().join("deny.toml"))).extract().expect("deny.toml")
}

/// The packages that are compiled on this machine.
fn packages() -> Vec<Package> {
    let rustc = Command::new("rustc").args(["-vV"]).output().expect("rustc");
    let version = String::from_utf8(rustc.stdout).expect("text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let Metadata { packages } = serde_json::from_slice(&metadata.stdout).expect("JSON");
    assert!(packages.len() > 200, "{} packages are not all of them", packages.len());
    packages
}

#[test]
fn licences_are_on_the_list() {
    let Licenses { allow, exceptions } = deny().licenses;
    let mut problems = vec![];
    for Package { name, version, license, .. } in packages() {
        let stated = license.unwrap_or_default();
        let Ok(expression) = Expression::parse_mode(&stated, ParseMode::LAX) else {
            problems.push(format!("{name} {version}: '{stated}' is no licence"));
            continue;
        };
        let excepted = exceptions.iter().filter(|exception| exception.name == name);
        let allowed: Vec<&String> =
            allow.iter().chain(excepted.flat_map(|exception| &exception.allow)).collect();
        let is_allowed = |license: &spdx::LicenseReq| {
            let license = license.to_string();
            allowed.iter().any(|allowed| **allowed == license)
        };
        if !expression.evaluate(is_allowed) {
            problems.push(format!("{name} {version}: {stated}"));
        }
    }
    assert!(problems.is_empty(), "not in deny.toml:\n  {}", problems.join("\n  "));
}

#[test]
fn everything_comes_from_the_registry() {
    let Sources { allow_registry } = deny().sources;
    let foreign = packages().into_iter().filter(|package| {
        let source = package.source.as_deref().map(|source| source.trim_start_matches("registry+"));
        source.is_some_and(|source| !allow_registry.iter().any(|allowed| allowed == source))
    });
    let foreign: Vec<String> =
        foreign.map(|package| format!("{} of {:?}", package.name, package.source)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}
