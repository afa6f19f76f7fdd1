//! A bill of materials of the binary `walgate` in CycloneDX 1.5: what `cargo metadata` says is linked into it, with the
//! digests that `Cargo.lock` holds. The same tree always gives the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cargo;

/// From the root.
pub const FILE: &str = "target/walgate.cdx.json";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
    repository: Option<String>,
    /// None: of this workspace.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// None: an ordinary one, which is linked in; those of tests and build scripts are not.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

pub fn write() -> Result<()> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let what = ["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform];
    let metadata = cargo::output(what)?;
    let metadata: Metadata = serde_json::from_slice(&metadata).context("read cargo metadata")?;
    let lock = Toml::file_exact(Path::new(cargo::ROOT).join("Cargo.lock"));
    let lock: Lock = Figment::from(lock).extract().context("read Cargo.lock")?;
    let mut text = serde_json::to_string_pretty(&bill(&metadata, &lock)?)?;
    text.push('\n');
    fs::write(Path::new(cargo::ROOT).join(FILE), text).with_context(|| format!("write {FILE}"))
}

fn bill(metadata: &Metadata, lock: &Lock) -> Result<Value> {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (&*package.id, package)).collect();
    let edges: BTreeMap<&str, Vec<&str>> =
        metadata.resolve.nodes.iter().map(|node| (&*node.id, node.linked())).collect();
    let root = metadata.packages.iter().find(|package| package.name == "walgate-host");
    let root = root.context("cargo metadata does not show walgate-host")?;
    let mut reached = BTreeSet::new();
    let mut ahead = vec![&*root.id];
    while let Some(id) = ahead.pop() {
        if reached.insert(id) {
            ahead.extend(edges.get(id).into_iter().flatten());
        }
    }
    let linked: Vec<&Package> = reached.iter().filter_map(|id| packages.get(id).copied()).collect();
    let checksum = |package: &Package| {
        let same =
            |locked: &&Locked| locked.name == package.name && locked.version == package.version;
        lock.package.iter().find(same)?.checksum.as_deref()
    };
    let components = linked.iter().filter(|package| package.id != root.id);
    let components: Vec<Value> =
        components.map(|package| component("library", package, checksum(package))).collect();
    let references = |id: &str| {
        let on = edges.get(id).into_iter().flatten().filter_map(|id| packages.get(id));
        on.map(|package| package.reference()).collect::<BTreeSet<_>>()
    };
    let dependencies: Vec<Value> = linked
        .iter()
        .map(|package| json!({"ref": package.reference(), "dependsOn": references(&package.id)}))
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component("application", root, None)},
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(kind: &str, package: &Package, checksum: Option<&str>) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": package.reference(),
        "name": package.name,
        "version": package.version,
    });
    if package.source.is_some() {
        component["purl"] = package.reference().into();
    }
    if let Some(license) = &package.license {
        // Before there were expressions, a slash stood for "or".
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if let Some(description) = &package.description {
        component["description"] = description.trim().into();
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    if let Some(checksum) = checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

impl Package {
    /// As package URLs write it.
    fn reference(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

impl Node {
    fn linked(&self) -> Vec<&str> {
        let linked =
            |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        self.deps.iter().filter(linked).map(|dependency| &*dependency.pkg).collect()
    }
}
