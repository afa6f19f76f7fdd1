//! Writes the conformance vectors: `cargo xtask vectors`.

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("vectors: name the folder to write to");
        return ExitCode::from(2);
    };
    walgate_tests::vectors::write_all(&folder);
    println!("vectors are in {}", folder.display());
    ExitCode::SUCCESS
}
