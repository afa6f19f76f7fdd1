//! Executes the pages that a new user follows: every command and every configuration of README.md
//! and docs/GETTING_STARTED.md, as written, in an empty folder. Postgres is the test's own, and the
//! gateway starts its private NATS server. At the end copies and source are compared.
//!
//! A block of `sh` is executed by bash, all of a page in one session. `sql` is executed by psql as
//! a superuser. `toml` is written to the file that is named before it. `rust` is a guest, which is
//! built. `text` is only read, but its commands have to exist. Nothing in a page is changed but the
//! address of Postgres.

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use walgate_tests::{
    Database, Server, Target,
    broker::nats_bin,
    eventually, on_each_postgres, on_newest_postgres,
    oracle::find_differences,
    page::{Block, Kind, commands, parse_blocks, postgres_urls},
    program::{find_built, without_walgate_env},
};

/// Pages use fixed ports, so only one of them can be executed at a time, on the whole machine.
const LOCK: &str = "/var/tmp/walgate-pages.lock";
/// Written by the script after the last block.
const DONE: &str = "page-is-done";

on_each_postgres! {
    async fn getting_started_leads_to_a_copy_that_is_equal(server) {
        let page = Walk::start("docs/GETTING_STARTED.md", &server).await;
        page.finish().await;
    }
}

on_newest_postgres! {
    async fn the_readme_leads_to_a_copy_that_is_equal(server) {
        let page = Walk::start("README.md", &server).await;
        page.build_guests();
        page.finish().await;
    }
}

/// Commands that a page mentions and that this test does not execute.
#[test]
fn commands_in_the_pages_exist() {
    for page in ["README.md", "docs/GETTING_STARTED.md"] {
        let blocks = read_page(page);
        for command in commands(&blocks, &["cargo", "xtask"]) {
            let help = help_of("xtask", &command[2..3]);
            assert!(help.is_some(), "{page}: {command:?} does not exist");
        }
        for command in commands(&blocks, &["cargo", "build"]) {
            let program = command.iter().skip_while(|word| **word != "--bin").nth(1);
            find_built(program.unwrap_or_else(|| panic!("{page}: {command:?} names no --bin")));
        }
        for command in commands(&blocks, &["walgate"]) {
            let help = help_of("walgate", &command[1..2]);
            let help = help.unwrap_or_else(|| panic!("{page}: {command:?} does not exist"));
            let is_complete =
                !help.contains("Commands:") || help_of("walgate", &command[1..3]).is_some();
            assert!(is_complete, "{page}: {command:?} does not exist");
        }
    }
}

/// The help of one of a program's commands; `None` without such a command.
fn help_of(program: &str, command: &[&str]) -> Option<String> {
    let help = Command::new(find_built(program)).arg("help").args(command).output().unwrap();
    help.status.success().then(|| String::from_utf8_lossy(&help.stdout).into_owned())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read_page(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    parse_blocks(&text).unwrap_or_else(|error| panic!("{page}, {error}"))
}

/// A page whose blocks were executed. Its background programs still run.
struct Walk {
    page: &'static str,
    blocks: Vec<Block>,
    session: Session,
    source: Database,
    /// The page's URL, with the address of this server.
    url: String,
    folder: TempDir,
    _lock: File,
}

impl Walk {
    /// Executes all blocks.
    async fn start(page: &'static str, server: &Arc<Server>) -> Walk {
        let lock = File::create(LOCK).unwrap();
        lock.lock().unwrap();
        let server = Arc::new(Server::start(server.bin(), &[]));
        let mut blocks = read_page(page);
        let [url] = &postgres_urls(&blocks)[..] else {
            panic!("{page} has to use one Postgres URL: {:?}", postgres_urls(&blocks));
        };
        let (url, database) = relocate(url, &mut blocks, server.process().port());
        let folder =
            tempfile::Builder::new().prefix("walgate-page-").tempdir_in("/var/tmp").unwrap();
        let session = Session::start(page, &blocks, folder.path(), &server);
        session.wait_until_done(page).await;
        let source = Database::open(&server, &database).await;
        Walk { page, blocks, session, source, url, folder, _lock: lock }
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Every copy that a command of the page keeps, with the names of its tables.
    fn copies(&self) -> Vec<(Target, Vec<String>)> {
        let copy = |command: Vec<&str>| {
            let values = |option: &str| {
                let pairs = command.windows(2).filter(|pair| pair[0] == option);
                pairs.map(|pair| pair[1].to_owned()).collect::<Vec<_>>()
            };
            let [target] = &values("--to")[..] else { panic!("{command:?} has no target") };
            let file = target.strip_prefix("sqlite:").expect("a copy in SQLite");
            (Target::Sqlite(self.work().join(file)), values("--table"))
        };
        let executed: Vec<_> =
            self.blocks.iter().filter(|block| block.kind == Kind::Sh).cloned().collect();
        commands(&executed, &["walgate", "replicate"]).into_iter().map(copy).collect()
    }

    /// Builds each guest of the page with the SDK, in a crate made by `walgate guest new`. Then
    /// checks the guest against its table.
    fn build_guests(&self) {
        let mut number = 0;
        for block in &self.blocks {
            let Kind::Rust { file } = &block.kind else { continue };
            number += 1;
            let name = format!("guest{number}");
            let crate_dir = self.work().join(&name);
            self.walgate(&["guest", "new", &name]);
            // The build of this tree has fetched the dependencies.
            fs::copy(repository().join("Cargo.lock"), crate_dir.join("Cargo.lock")).unwrap();
            fs::write(crate_dir.join(file), &block.text).unwrap();
            self.walgate(&["guest", "build", &name]);
            let wasm = format!("{name}/{name}.wasm");
            let table = &self.copies()[0].1[0];
            self.walgate(&["guest", "check", &wasm, "--table", table, "--source", &self.url]);
        }
        assert!(number > 0, "{} has no guest", self.page);
    }

    fn walgate(&self, args: &[&str]) {
        let mut command = Command::new(find_built("walgate"));
        command.args(args).current_dir(self.work()).env("CARGO_NET_OFFLINE", "true");
        let output = command.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {args:?}: {printed}", self.page);
    }

    /// Compares over SQL, also after further changes. `walgate verify` was a command of the page.
    async fn finish(self) {
        let verified = commands(&self.blocks, &["walgate", "verify"]);
        assert!(!verified.is_empty(), "{} does not compare copies with their source", self.page);
        let copies = self.copies();
        assert!(!copies.is_empty(), "{} makes no copy", self.page);
        for round in 0..2 {
            for (target, tables) in &copies {
                assert!(!tables.is_empty(), "{} copies no table", self.page);
                for table in tables {
                    if round > 0 {
                        let half = format!(
                            "delete from {table} where ctid in (select ctid from {table} limit 1)"
                        );
                        self.source.sql(&half).await;
                    }
                    eventually(format!("{}: {table} is equal", self.page), async || {
                        self.session.check()?;
                        find_differences(&self.source, target, table, table).await
                    })
                    .await;
                }
            }
        }
    }
}

/// Puts the server's address into the page; returns the URL and the name of its database.
fn relocate(url: &str, blocks: &mut [Block], port: u16) -> (String, String) {
    let (before, after) = url.split_once('@').expect("a URL with a user");
    let (_, database) = after.split_once('/').expect("a URL with a database");
    let here = format!("{before}@127.0.0.1:{port}/{database}");
    for block in blocks {
        block.text = block.text.replace(url, &here);
    }
    (here, database.to_owned())
}

/// The bash in which a page is executed, with everything that it has started.
struct Session {
    bash: Child,
    /// bash ends its script when this is closed.
    _input: ChildStdin,
    folder: PathBuf,
}

impl Session {
    fn start(page: &str, blocks: &[Block], folder: &Path, server: &Server) -> Session {
        let (bin, work) = (folder.join("bin"), folder.join("work"));
        fs::create_dir(&bin).unwrap();
        fs::create_dir(&work).unwrap();
        symlink(find_built("walgate"), bin.join("walgate")).unwrap();
        symlink(&nats_bin().file, bin.join("nats-server")).unwrap();
        let script = folder.join("page.sh");
        fs::write(&script, write_script(page, blocks, folder, server)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let log = File::create(folder.join("log")).unwrap();
        let mut bash = Command::new("bash");
        // The process group ends with its parent, so that a killed test leaves no process behind.
        let watch = "(while kill -0 $1 2>/dev/null; do sleep 1; done; kill -9 0) & exec bash $2";
        bash.args(["-c", watch, "watch", &std::process::id().to_string()]).arg(&script);
        without_walgate_env(&mut bash);
        bash.current_dir(&work).env("PATH", path).env("NO_COLOR", "1").process_group(0);
        bash.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut bash = bash.spawn().unwrap();
        let input = bash.stdin.take().unwrap();
        Session { bash, _input: input, folder: folder.to_owned() }
    }

    /// bash waits for more input after the last block, so it must not have ended.
    fn check(&self) -> Result<(), String> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.bash.id()));
        match stat {
            Ok(stat) if !stat.contains(") Z ") => Ok(()),
            _ => panic!("a command failed:\n{}", self.log()),
        }
    }

    async fn wait_until_done(&self, page: &str) {
        eventually(format!("{page} is executed"), async || {
            self.check()?;
            if self.folder.join(DONE).exists() { Ok(()) } else { Err(self.log()) }
        })
        .await;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the session:\n{}\n---", self.log());
        }
        let _ = kill_process_group(Pid::from_child(&self.bash), Signal::KILL);
        let _ = self.bash.wait();
    }
}

/// One script for the page. The first command that fails ends it.
fn write_script(page: &str, blocks: &[Block], folder: &Path, server: &Server) -> String {
    let superuser = server.process().unix_url("postgres");
    let psql = server.bin().program("psql");
    let mut script = "set -euo pipefail\n".to_owned();
    for block in blocks {
        let line = block.line;
        script += &format!("echo '== {page}:{line}'\n");
        match &block.kind {
            Kind::Text | Kind::Rust { .. } => {}
            Kind::Sh => script += &block.text,
            Kind::Sql => {
                let file = folder.join(format!("{line}.sql"));
                fs::write(&file, &block.text).unwrap();
                script += &format!(
                    "'{}' -X -v ON_ERROR_STOP=1 -d '{superuser}' -f '{}'\n",
                    psql.display(),
                    file.display()
                );
            }
            Kind::Toml { file } => {
                let written = folder.join(format!("{line}.toml"));
                fs::write(&written, &block.text).unwrap();
                script += &format!("cp '{}' '{file}'\n", written.display());
            }
        }
    }
    script + &format!("touch '{}'\nread -r _\n", folder.join(DONE).display())
}
