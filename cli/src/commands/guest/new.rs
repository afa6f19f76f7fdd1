//! `walgate guest new`: creates a crate for a guest that builds and tests at once, in any folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::commands::Usage;

const MANIFEST: &str = include_str!("template/Cargo.toml.in");
const GUEST: &str = include_str!("template/lib.rs.in");
const README: &str = include_str!("template/README.md.in");
const IGNORED: &str =
    "/target\n*.wasm\n# Rows of a table, with everything that the guest keeps back.\n/rows.jsonl\n";
/// The SDK in the source tree that this program was built in.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-sdk");
/// Rust's keywords, and names that the template uses.
const TAKEN: &[&str] = &[
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "struct",
    "super",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "test",
    "tests",
    "core",
    "std",
    "alloc",
    "mask",
    "log",
    "walgate_guest",
];

/// Make a crate for a guest that builds and tests at once.
///
/// Its example is the tutorial's: it publishes the rows of one country, without password hashes and
/// with masked e-mail addresses.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the SDK walgate-guest comes from: a folder, or a version in the registry [default: the
    /// source tree that walgate was built from if it is there, else the registry]
    #[arg(long, value_name = "PATH|VERSION")]
    sdk: Option<String>,
    /// The name of the folder, the crate and the guest, for example users
    #[arg(value_name = "NAME")]
    name: String,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let name = &args.name;
    let function = name.replace('-', "_");
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !starts || !name.chars().all(legal) || TAKEN.contains(&function.as_str()) {
        let what = format!(
            "{name} cannot be the name of a crate and a function in it: begin with a-z, then a-z, 0-9, _ and -, and no \
             word of Rust"
        );
        return Err(Usage(what).into());
    }
    let folder = Path::new(name);
    if folder.exists() {
        return Err(Usage(format!("{name} is there already: choose another name or folder")).into());
    }
    let sdk = sdk(args.sdk.as_deref())?;
    let fill = |template: &str| {
        template.replace("{name}", name).replace("{function}", &function).replace("{sdk}", &sdk)
    };
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    fs::create_dir_all(folder.join("src")).with_context(|| format!("making {name}"))?;
    write("Cargo.toml", &fill(MANIFEST))?;
    write("src/lib.rs", &fill(GUEST))?;
    write("README.md", &fill(README))?;
    write(".gitignore", IGNORED)?;
    println!("{name}: a guest. cd {name}, then `cargo test`, then `walgate guest build`");
    Ok(ExitCode::SUCCESS)
}

/// The dependency as Cargo.toml expresses it.
fn sdk(asked: Option<&str>) -> Result<String> {
    match asked {
        Some(version) if version.starts_with(|c: char| c.is_ascii_digit()) => {
            Ok(format!("{version:?}"))
        }
        Some(path) => {
            let there = sdk_in(Path::new(path));
            let what = || {
                Usage(format!(
                    "{path} has no Cargo.toml of walgate-guest: name the folder guest-sdk of Walgate's source tree, or a \
                     version"
                ))
            };
            Ok(there.ok_or_else(what)?)
        }
        None => {
            Ok(sdk_in(Path::new(SDK)).unwrap_or_else(|| format!("{:?}", env!("CARGO_PKG_VERSION"))))
        }
    }
}

fn sdk_in(folder: &Path) -> Option<String> {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let folder: PathBuf = folder.canonicalize().ok()?;
    let is_ours = manifest.lines().any(|line| line.trim() == "name = \"walgate-guest\"");
    is_ours.then(|| format!("{{ path = {:?} }}", folder.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_comes_from_where_it_is() {
        assert_eq!(sdk(Some("0.1.2")).unwrap(), "\"0.1.2\"");
        assert!(sdk(Some(SDK)).unwrap().starts_with("{ path = \"/"));
        assert_eq!(sdk(None).unwrap(), sdk(Some(SDK)).unwrap());
        assert!(sdk(Some("/nowhere")).unwrap_err().to_string().contains("guest-sdk"));
    }

    #[test]
    fn names_that_are_none() {
        for name in ["", "Users", "1st", "type", "a.b", "../a", "ä"] {
            let args = Args { sdk: None, name: name.into() };
            assert!(run(&args).unwrap_err().is::<Usage>(), "{name}");
        }
    }
}
