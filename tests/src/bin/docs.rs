//! Writes the generated parts of the documents: `cargo xtask docs`.

use std::{fs, process::ExitCode};

use walgate_tests::{
    configuration_page::{PAGE, render_page},
    source_tree::workspace_root,
};

fn main() -> ExitCode {
    match fs::write(workspace_root().join(PAGE), render_page()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("docs: {PAGE}: {error}");
            ExitCode::FAILURE
        }
    }
}
