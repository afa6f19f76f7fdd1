//! Writing a file into a watched folder.

use std::{fs, io, path::Path};

/// A reader of `path` sees the old file or the new one, never a part.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = path.to_path_buf().into_os_string();
    unfinished.push(".tmp");
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}
