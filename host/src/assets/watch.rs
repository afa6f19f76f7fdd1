//! Drop-in folders: a file is read whole once it has not changed for a moment, and offered to its
//! handler.
//!
//! A problem with a file is logged once for each content, and the live version stays. The meaning
//! of a file is not known here.

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

/// A file that changed more recently than this may still be incomplete.
const QUIET: Duration = Duration::from_millis(250);
/// The folder is also polled this often: inotify may be missing (overlay, NFS) or overflow.
const POLL: Duration = Duration::from_secs(2);
/// The most expected file names that a warning about an unused file lists.
const EXPECTED_NAMES_MAX: usize = 8;

/// Uses the files of a folder, one file a table.
pub trait DropInHandler: Send {
    /// What a file is, for logs.
    const WHAT: &'static str;

    /// The ending of file names.
    const ENDING: &'static str;

    /// A larger file is offered truncated to one byte more than this.
    fn bytes_max(&self) -> usize;

    /// The file of a table, relative to the folder.
    fn file_of(&self, token: &Token) -> PathBuf;

    /// Receives new contents. `Ok`: they are in use now.
    fn offer(
        &mut self,
        token: &Token,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), OfferError>> + Send;

    /// The file does not exist, or was removed.
    fn handle_missing(&mut self, token: &Token) -> impl Future<Output = ()> + Send;

    /// The file cannot be used; called once for each problem. Returns what is used instead, for the
    /// log.
    fn handle_rejected(&mut self, token: &Token, problem: &str) -> String;
}

/// Why contents were not accepted.
#[derive(Debug)]
pub enum OfferError {
    /// Permanent: not offered again until the contents change.
    Invalid(String),
    /// Transient: offered again at the next poll.
    Transient(String),
}

impl OfferError {
    pub fn invalid(problem: impl Display) -> OfferError {
        OfferError::Invalid(problem.to_string())
    }
}

/// Follows one folder for the configured tables.
#[derive(Debug)]
pub struct DropInFolder<H> {
    folder: PathBuf,
    tokens: Vec<Token>,
    handler: H,
    seen: HashMap<Token, SeenFile>,
    /// Unused files that were warned about.
    unused: HashSet<OsString>,
    /// This process cannot open any file; logged once.
    is_blind: bool,
    permissions: PermissionAudit,
}

/// The state of a table's file at the last poll.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SeenFile {
    Accepted([u8; 32]),
    Rejected([u8; 32]),
    Unreadable(String),
    Missing,
}

impl<H: DropInHandler> DropInFolder<H> {
    pub fn new(folder: PathBuf, tokens: Vec<Token>, handler: H) -> Self {
        DropInFolder {
            folder,
            tokens,
            handler,
            seen: HashMap::new(),
            unused: HashSet::new(),
            is_blind: false,
            permissions: PermissionAudit::default(),
        }
    }

    /// Offers the files that exist now. Await this before the first message is packed.
    pub async fn load(&mut self) {
        if !self.folder.is_dir() {
            let folder = self.folder.display();
            tracing::info!(%folder, "folder does not exist yet: no {}", H::WHAT);
        }
        self.warn_about_unused_files();
        for token in self.tokens.clone() {
            self.check_file(&token).await;
        }
    }

    /// Follows the folder until the task is dropped.
    pub async fn follow(mut self) {
        let (events, mut changed) = mpsc::channel::<()>(1);
        let mut watcher = None;
        loop {
            // The folder may appear later, or be replaced.
            if watcher.is_none() || !self.folder.is_dir() {
                watcher = self.start_watcher(events.clone());
            }
            let _ = tokio::time::timeout(POLL, changed.recv()).await;
            self.warn_about_unused_files();
            for token in self.tokens.clone() {
                self.wait_until_unchanged(&token).await;
                self.check_file(&token).await;
            }
        }
    }

    fn start_watcher(&self, events: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        let on_event = move |event: notify::Result<notify::Event>| {
            // Reads are events, too: the gateway's own would wake it forever.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            // A full channel already means "poll again".
            let _ = events.try_send(());
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        watcher
            .inspect_err(|error| {
                tracing::debug!(folder = %self.folder.display(), %error, "folder cannot be watched, polling it");
            })
            .ok()
    }

    /// Warns once about a file that no table uses: an operator expects that it has an effect.
    fn warn_about_unused_files(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let used: Vec<PathBuf> =
            self.tokens.iter().map(|token| self.handler.file_of(token)).collect();
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let is_one = name.as_encoded_bytes().ends_with(H::ENDING.as_bytes());
            let is_used = used.iter().any(|used| self.folder.join(used) == self.folder.join(&name));
            if is_one && !is_used && self.unused.insert(name.clone()) {
                let used: Vec<_> =
                    used.iter().take(EXPECTED_NAMES_MAX).map(|f| f.to_string_lossy()).collect();
                tracing::warn!(
                    file = %self.folder.join(&name).display(),
                    used = used.join(", "),
                    "no configured table uses this {}: a table's file is named after its token", H::WHAT
                );
            }
        }
    }

    /// Waits until the file has not changed for a moment; gives up after a while.
    async fn wait_until_unchanged(&self, token: &Token) {
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
        self.folder.join(self.handler.file_of(token))
    }

    async fn check_file(&mut self, token: &Token) {
        let path = self.path(token);
        self.permissions.check(H::WHAT, &self.folder);
        self.permissions.check(H::WHAT, &path);
        let mut read = read_capped(&self.folder, &path, self.handler.bytes_max());
        // A replacement may remove the old file first.
        if self.seen.get(token).is_some_and(|seen| *seen != SeenFile::Missing) && is_missing(&read)
        {
            tokio::time::sleep(QUIET).await;
            self.wait_until_unchanged(token).await;
            read = read_capped(&self.folder, &path, self.handler.bytes_max());
        }
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return self.report_missing(token).await;
            }
            // The error is not about the file, which may not even exist.
            Err(e) if self.seen.contains_key(token) && is_of_this_process(&e) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    let folder = self.folder.display();
                    tracing::warn!(%folder, problem = %e, "cannot look for any {}; the live ones stay, retrying", H::WHAT);
                }
                return;
            }
            Err(e) => {
                let problem = e.to_string();
                return self.report_rejected(
                    token,
                    SeenFile::Unreadable(problem.clone()),
                    &path,
                    &problem,
                );
            }
        };
        self.is_blind = false;
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        if matches!(self.seen.get(token), Some(SeenFile::Accepted(h) | SeenFile::Rejected(h)) if *h == hash)
        {
            return;
        }
        match self.handler.offer(token, bytes).await {
            Ok(()) => {
                self.seen.insert(token.clone(), SeenFile::Accepted(hash));
            }
            Err(OfferError::Invalid(problem)) => {
                self.report_rejected(token, SeenFile::Rejected(hash), &path, &problem);
            }
            Err(OfferError::Transient(problem)) => {
                tracing::warn!(table = %token, problem, "{} not live yet, retrying", H::WHAT);
                // Nothing was live before: the handler must block the table meanwhile.
                if !self.seen.contains_key(token) {
                    self.handler.handle_rejected(token, &problem);
                }
            }
        }
    }

    async fn report_missing(&mut self, token: &Token) {
        self.is_blind = false;
        if self.seen.insert(token.clone(), SeenFile::Missing) != Some(SeenFile::Missing) {
            self.handler.handle_missing(token).await;
        }
    }

    fn report_rejected(&mut self, token: &Token, seen: SeenFile, path: &Path, problem: &str) {
        if self.seen.get(token) == Some(&seen) {
            return;
        }
        let file = path.display();
        let kept = self.handler.handle_rejected(token, problem);
        tracing::warn!(table = %token, %file, problem, kept, "{} refused", H::WHAT);
        self.seen.insert(token.clone(), seen);
    }
}

fn is_missing(read: &io::Result<Vec<u8>>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether no file could be opened now, whichever it is.
fn is_of_this_process(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Reads at most one byte more than a file may have, so that the handler sees that it is too large.
/// Links may point within the folder, as in a Kubernetes ConfigMap, but not out of it. The folder
/// itself may be a link.
fn read_capped(folder: &Path, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    use io::Read;
    let real = path.canonicalize()?;
    if !real.starts_with(folder.canonicalize()?) {
        let problem = format!(
            "the link leads out of the folder, to {}: copy the file into it",
            real.display()
        );
        return Err(io::Error::other(problem));
    }
    // Opening a pipe would wait for a writer.
    if !real.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(real)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Warns about files and folders that other users may write. Remembers those it warned about.
#[derive(Debug, Default)]
pub struct PermissionAudit(HashSet<PathBuf>);

impl PermissionAudit {
    /// Warns once if other users than its owner may write to `path`. A missing path is ignored.
    pub fn check(&mut self, what: &str, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let Ok(mode) = path.metadata().map(|metadata| metadata.permissions().mode()) else {
            return;
        };
        if mode & 0o022 != 0 && self.0.insert(path.to_owned()) {
            let (path, mode) = (path.display(), format!("{:o}", mode & 0o777));
            tracing::warn!(%path, mode, "{what}: others may write here, and so decide which rows are published; chmod go-w");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, sync::mpsc, thread};

    use super::*;

    #[test]
    fn a_pipe_does_not_block_the_reader() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("users.wasm");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (done, answer) = mpsc::channel();
        let parent = folder.path().to_owned();
        thread::spawn(move || done.send(read_capped(&parent, &pipe, 10)));
        let read = answer.recv_timeout(Duration::from_secs(60)).expect("an answer");
        assert_eq!(read.unwrap_err().to_string(), "not a regular file");
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
