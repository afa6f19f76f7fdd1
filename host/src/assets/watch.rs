//! Drop-in folders: files are read whole once they have been quiet for a moment, and offered to what uses them.
//!
//! Whatever is wrong with a file is said once for each content, and what was live stays. What a file means is
//! not known here.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fmt::Display,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use walgate_wire::Token;

/// A file that changed more recently than this may still be being written.
const QUIET: Duration = Duration::from_millis(250);
/// Where inotify is missing (overlay, NFS) or overflows, the folder is listed this often all the same.
const POLL: Duration = Duration::from_secs(2);
/// How many names that would have been right stand beside one that is not.
const STRAYS_TOLD: usize = 8;

/// What the files of a folder are for: one file a table.
pub trait Shelf: Send {
    /// In words, for logs.
    const WHAT: &'static str;

    /// What the names of its files end in.
    const ENDING: &'static str;

    /// A file that is larger than this is offered cut off behind one byte more.
    fn bytes_max(&self) -> usize;

    /// The file of a table, relative to the folder.
    fn file(&self, token: &Token) -> PathBuf;

    /// New contents; the answer says whether they are live now.
    fn offer(
        &mut self,
        token: &Token,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// There is no file, or none any more.
    fn absent(&mut self, token: &Token) -> impl Future<Output = ()> + Send;

    /// What lies there cannot be used, told once; the answer says what is used instead.
    fn refused(&mut self, token: &Token, problem: &str) -> String;
}

/// Why contents did not become live.
#[derive(Debug)]
pub enum Refused {
    /// Wrong for good: not looked at again until they change.
    Invalid(String),
    /// For a passing reason: offered again at the next look.
    NotNow(String),
}

impl Refused {
    pub fn invalid(problem: impl Display) -> Refused {
        Refused::Invalid(problem.to_string())
    }
}

/// Follows one folder for the configured tables.
#[derive(Debug)]
pub struct Folder<S> {
    folder: PathBuf,
    tokens: Vec<Token>,
    shelf: S,
    seen: HashMap<Token, Seen>,
    /// Files of nobody's that were named.
    strays: HashSet<OsString>,
    /// No file can be opened at all; said once.
    is_blind: bool,
    writable: Writable,
}

/// What the folder held for a table when it was looked at last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Live([u8; 32]),
    Refused([u8; 32]),
    Unreadable(String),
    Absent,
}

impl<S: Shelf> Folder<S> {
    pub fn new(folder: PathBuf, tokens: Vec<Token>, shelf: S) -> Self {
        let (seen, strays, writable) = Default::default();
        Folder { folder, tokens, shelf, seen, strays, is_blind: false, writable }
    }

    /// Loads what lies in the folder now; to be awaited before the first message is packed.
    pub async fn load(&mut self) {
        if !self.folder.is_dir() {
            tracing::info!(folder = %self.folder.display(), "no such folder yet, so no {}", S::WHAT);
        }
        self.name_strays();
        for token in self.tokens.clone() {
            self.look_at(&token).await;
        }
    }

    /// Follows the folder until the task is dropped.
    pub async fn follow(mut self) {
        let (events, mut changed) = mpsc::channel::<()>(1);
        let mut watcher = None;
        loop {
            // The folder may appear later, or be replaced by another.
            if watcher.is_none() || !self.folder.is_dir() {
                watcher = self.watcher(events.clone());
            }
            let _ = tokio::time::timeout(POLL, changed.recv()).await;
            self.name_strays();
            for token in self.tokens.clone() {
                self.quiet(&token).await;
                self.look_at(&token).await;
            }
        }
    }

    fn watcher(&self, events: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        let on_event = move |event: notify::Result<notify::Event>| {
            // Reading a file is an event, too: ours would wake us for ever.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            // A full channel already means "look again".
            let _ = events.try_send(());
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        watcher
            .inspect_err(|error| {
                tracing::debug!(folder = %self.folder.display(), %error, "cannot watch the folder, polling it");
            })
            .ok()
    }

    /// Warns once of a file that no table uses: whoever put it there expects that something comes of it.
    fn name_strays(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let used: Vec<PathBuf> = self.tokens.iter().map(|token| self.shelf.file(token)).collect();
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let is_one = name.as_encoded_bytes().ends_with(S::ENDING.as_bytes());
            let is_used = used.iter().any(|used| self.folder.join(used) == self.folder.join(&name));
            if is_one && !is_used && self.strays.insert(name.clone()) {
                let used: Vec<_> =
                    used.iter().take(STRAYS_TOLD).map(|f| f.to_string_lossy()).collect();
                tracing::warn!(
                    file = %self.folder.join(&name).display(),
                    used = used.join(", "),
                    "no configured table uses this {}: a table's file is called after its token", S::WHAT
                );
            }
        }
    }

    /// Waits, for a while, until nobody writes the file.
    async fn quiet(&self, token: &Token) {
        let path = self.path(token);
        for _ in 0..40 {
            let changed = std::fs::metadata(&path).and_then(|m| m.modified());
            let age =
                changed.map_or(QUIET, |at| SystemTime::now().duration_since(at).unwrap_or(QUIET));
            if age >= QUIET {
                return;
            }
            tokio::time::sleep(QUIET - age).await;
        }
    }

    fn path(&self, token: &Token) -> PathBuf {
        self.folder.join(self.shelf.file(token))
    }

    async fn look_at(&mut self, token: &Token) {
        let path = self.path(token);
        self.writable.look_at(S::WHAT, &self.folder);
        self.writable.look_at(S::WHAT, &path);
        let mut read = read_capped(&self.folder, &path, self.shelf.bytes_max());
        // Whoever replaces a file may take the old one away first.
        if self.seen.get(token).is_some_and(|seen| *seen != Seen::Absent) && is_absent(&read) {
            tokio::time::sleep(QUIET).await;
            self.quiet(token).await;
            read = read_capped(&self.folder, &path, self.shelf.bytes_max());
        }
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.absent(token).await,
            // It says nothing about the file, which may well not be there.
            Err(e) if self.seen.contains_key(token) && is_of_this_process(&e) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    let folder = self.folder.display();
                    tracing::warn!(%folder, problem = %e, "cannot look for any {}; what is live stays, trying again", S::WHAT);
                }
                return;
            }
            Err(e) => {
                let problem = e.to_string();
                return self.refuse(token, Seen::Unreadable(problem.clone()), &path, &problem);
            }
        };
        self.is_blind = false;
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        if matches!(self.seen.get(token), Some(Seen::Live(h) | Seen::Refused(h)) if *h == hash) {
            return;
        }
        match self.shelf.offer(token, bytes).await {
            Ok(()) => {
                self.seen.insert(token.clone(), Seen::Live(hash));
            }
            Err(Refused::Invalid(problem)) => {
                self.refuse(token, Seen::Refused(hash), &path, &problem);
            }
            Err(Refused::NotNow(problem)) => {
                tracing::warn!(table = %token, problem, "{} not live yet, trying again", S::WHAT);
                // Nothing was live before: nothing passes it by meanwhile.
                if !self.seen.contains_key(token) {
                    self.shelf.refused(token, &problem);
                }
            }
        }
    }

    async fn absent(&mut self, token: &Token) {
        self.is_blind = false;
        if self.seen.insert(token.clone(), Seen::Absent) != Some(Seen::Absent) {
            self.shelf.absent(token).await;
        }
    }

    fn refuse(&mut self, token: &Token, seen: Seen, path: &Path, problem: &str) {
        if self.seen.get(token) == Some(&seen) {
            return;
        }
        let (file, kept) = (path.display(), self.shelf.refused(token, problem));
        tracing::warn!(table = %token, %file, problem, kept, "{} refused", S::WHAT);
        self.seen.insert(token.clone(), seen);
    }
}

fn is_absent(read: &io::Result<Vec<u8>>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// No file could be opened now, whichever it is.
fn is_of_this_process(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Reads at most one byte more than a file may have, so that whoever checks it sees that it is too large. Links may lead
/// about in the folder, as those of a Kubernetes ConfigMap do, but not out of it; the folder itself may be a link.
fn read_capped(folder: &Path, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    use io::Read;
    let real = path.canonicalize()?;
    if !real.starts_with(folder.canonicalize()?) {
        let problem =
            format!("it leads out of the folder, to {}: copy the file into it", real.display());
        return Err(io::Error::other(problem));
    }
    // Opening a pipe would wait for somebody who writes to it.
    if !real.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(real)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Files and folders that others may write, and that were named for it.
#[derive(Debug, Default)]
pub struct Writable(HashSet<PathBuf>);

impl Writable {
    /// Warns once if others than its owner may write to `path`. What is not there is not looked at.
    pub fn look_at(&mut self, what: &str, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let Ok(mode) = path.metadata().map(|metadata| metadata.permissions().mode()) else {
            return;
        };
        if mode & 0o022 != 0 && self.0.insert(path.to_owned()) {
            let (path, mode) = (path.display(), format!("{:o}", mode & 0o777));
            tracing::warn!(%path, mode, "{what}: others may write here, and so decide what leaves; chmod go-w");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, sync::mpsc, thread};

    use super::*;

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("users.wasm");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (done, answer) = mpsc::channel();
        let parent = folder.path().to_owned();
        thread::spawn(move || done.send(read_capped(&parent, &pipe, 10)));
        let read = answer.recv_timeout(Duration::from_secs(60)).expect("an answer");
        assert_eq!(read.unwrap_err().to_string(), "it is no file");
        let none = read_capped(folder.path(), &folder.path().join("none"), 10);
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_byte_more_than_allowed_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users.wasm");
        std::fs::write(&file, [0; 100]).unwrap();
        assert_eq!(read_capped(folder.path(), &file, 10).unwrap().len(), 11);
    }
}
