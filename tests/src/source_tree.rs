//! The Rust files of the workspace as text, for tests that check how the tree is written. This file
//! does not know what they check.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A Rust file; its path is relative to the workspace.
pub struct SourceFile {
    pub path: String,
    pub text: String,
}

/// The folder of the workspace.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every Rust file, in the order of paths. Without build output and hidden folders.
pub fn read_source_files() -> Vec<SourceFile> {
    let root = workspace_root();
    let mut found = vec![];
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_skipped = name.starts_with('.') || name == "target" || name == "node_modules";
            if path.is_dir() && !is_skipped {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(&root).expect("below the root").display().to_string();
                found.push(SourceFile { path, text });
            }
        }
    }
    assert!(found.len() > 50, "the tree was not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}
