//! A bill of materials of the binary `walgate` in CycloneDX 1.5: the packages that `cargo metadata`
//! shows as linked in, with the digests of `Cargo.lock`. The same tree always gives the same file.
//! Whether a licence is acceptable is not known here.

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

/// Path from the root.
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
    /// `None`: a package of this workspace.
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
    /// `None`: an ordinary dependency, which is linked in. Those of tests and build scripts are
    /// not.
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
    let metadata = cargo::read_cargo(what)?;
    let metadata: Metadata = serde_json::from_slice(&metadata).context("read cargo metadata")?;
    let lock = Toml::file_exact(Path::new(cargo::ROOT).join("Cargo.lock"));
    let lock: Lock = Figment::from(lock).extract().context("read Cargo.lock")?;
    let mut text = serde_json::to_string_pretty(&build_bill(&metadata, &lock)?)?;
    text.push('\n');
    fs::write(Path::new(cargo::ROOT).join(FILE), text).with_context(|| format!("write {FILE}"))
}

fn build_bill(metadata: &Metadata, lock: &Lock) -> Result<Value> {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (&*package.id, package)).collect();
    let edges: BTreeMap<&str, Vec<&str>> =
        metadata.resolve.nodes.iter().map(|node| (&*node.id, node.linked_dependencies())).collect();
    let root = metadata.packages.iter().find(|package| package.name == "walgate-cli");
    let root = root.context("cargo metadata does not show walgate-cli")?;
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
    let components: Vec<Value> = components
        .map(|package| describe_component("library", package, checksum(package)))
        .collect();
    let references = |id: &str| {
        let on = edges.get(id).into_iter().flatten().filter_map(|id| packages.get(id));
        on.map(|package| package.package_url()).collect::<BTreeSet<_>>()
    };
    let dependencies: Vec<Value> = linked
        .iter()
        .map(|package| json!({"ref": package.package_url(), "dependsOn": references(&package.id)}))
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": describe_component("application", root, None)},
        "components": components,
        "dependencies": dependencies,
    }))
}

fn describe_component(kind: &str, package: &Package, checksum: Option<&str>) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": package.package_url(),
        "name": package.name,
        "version": package.version,
    });
    if package.source.is_some() {
        component["purl"] = package.package_url().into();
    }
    if let Some(license) = &package.license {
        // In old manifests a slash means "or".
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
    /// The package URL (purl).
    fn package_url(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

impl Node {
    fn linked_dependencies(&self) -> Vec<&str> {
        let linked =
            |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        self.deps.iter().filter(linked).map(|dependency| &*dependency.pkg).collect()
    }
}
