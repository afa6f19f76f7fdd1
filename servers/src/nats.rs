//! A private nats-server with JetStream on disk, on loopback, killed or stopped on drop. It knows
//! no streams and no subjects.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::Result;
use crate::error::During;
use crate::find::NatsBin;
use crate::process::{Launch, Process, start_on};
use crate::scratch::Scratch;

const STOP_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// JetStream's directory, which is kept. `None`: a private one that is removed on drop.
    pub store_dir: Option<PathBuf>,
    /// `None`: a free one.
    pub port: Option<u16>,
    /// `None`: the server's default, 1 MiB.
    pub max_payload_bytes: Option<u64>,
    /// `None`: the server's default, three quarters of the free disk.
    pub max_file_store_bytes: Option<u64>,
    /// Sync the store before every acknowledgement: acknowledged messages survive a power cut.
    pub sync_always: bool,
    /// Appended to the configuration file, at its top level.
    pub extra_config: String,
}

#[derive(Debug)]
pub struct PrivateNats {
    process: Process,
    site: NatsSite,
}

/// The parts that survive when the server is killed and started again.
#[derive(Debug)]
struct NatsSite {
    bin: NatsBin,
    /// Zero until the first start.
    port: u16,
    store_dir: PathBuf,
    scratch: Scratch,
}

impl PrivateNats {
    /// Blocks until it accepts connections: some tens of milliseconds with an empty store.
    pub fn start(bin: &NatsBin, options: NatsOptions) -> Result<Self> {
        let mut site = NatsSite::prepare(bin, &options)?;
        let process = start_on(options.port, |port| {
            site.port = port;
            site.write_config(&options)?;
            site.launch()
        })?;
        Ok(Self { process, site })
    }

    pub fn bin(&self) -> &NatsBin {
        &self.site.bin
    }

    pub fn port(&self) -> u16 {
        self.site.port
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `nats://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    pub fn store_dir(&self) -> &Path {
        &self.site.store_dir
    }

    pub fn log(&self) -> PathBuf {
        self.site.log()
    }

    /// Orderly shutdown; a server that does not end within ten seconds is killed.
    pub fn stop(&mut self) -> Result<()> {
        self.resume()?;
        self.process.signal(Signal::TERM)?;
        match self.process.wait_at_most(STOP_WITHIN) {
            Some(_) => Ok(()),
            None => self.process.kill_tree(),
        }
    }

    /// Whether the process has ended: by itself, or killed by another process.
    pub fn has_ended(&mut self) -> bool {
        self.process.exit_status().is_some()
    }

    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill_tree()
    }

    /// Starts on the same store and port. A server that still runs is stopped first.
    pub fn start_again(&mut self) -> Result<()> {
        self.stop()?;
        self.process = self.site.launch()?;
        Ok(())
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&mut self) -> Result<()> {
        self.process.pause_tree()
    }

    pub fn resume(&mut self) -> Result<()> {
        self.process.resume_tree()
    }
}

impl Drop for PrivateNats {
    fn drop(&mut self) {
        // A store that is kept needs an orderly end.
        let _ = if self.site.store_dir.starts_with(self.site.scratch.path()) {
            self.kill9()
        } else {
            self.stop()
        };
    }
}

impl NatsSite {
    fn prepare(bin: &NatsBin, options: &NatsOptions) -> Result<Self> {
        let scratch = Scratch::create()?;
        let store_dir = options.store_dir.clone().unwrap_or_else(|| scratch.path().join("store"));
        let open = || format!("open the JetStream directory {}", store_dir.display());
        fs::create_dir_all(&store_dir).during(open)?;
        let store_dir = fs::canonicalize(&store_dir).during(open)?;
        Ok(Self { bin: bin.clone(), port: 0, store_dir, scratch })
    }

    fn config_file(&self) -> PathBuf {
        self.scratch.path().join("nats.conf")
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("nats.log")
    }

    /// The server writes it, with its pid in the name, once it accepts connections. So replies of
    /// another server on the same port are not mistaken for ours.
    fn ports_file(&self, pid: u32) -> PathBuf {
        let program = self.bin.file.file_name().unwrap_or_default().to_string_lossy();
        self.scratch.path().join(format!("{program}_{pid}.ports"))
    }

    fn write_config(&self, options: &NatsOptions) -> Result<()> {
        let file = self.config_file();
        fs::write(&file, self.render_config(options)).during(|| format!("write {}", file.display()))
    }

    fn render_config(&self, options: &NatsOptions) -> String {
        let mut text = format!("listen: \"127.0.0.1:{}\"\n", self.port);
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}: {value}");
        };
        line("ports_file_dir", &quote_path(self.scratch.path()));
        if let Some(bytes) = options.max_payload_bytes {
            line("max_payload", &bytes.to_string());
        }
        let mut store = format!("{{ store_dir: {}", quote_path(&self.store_dir));
        if let Some(bytes) = options.max_file_store_bytes {
            store += &format!(", max_file_store: {bytes}");
        }
        if options.sync_always {
            store += ", sync_interval: always";
        }
        line("jetstream", &format!("{store} }}"));
        text + &options.extra_config + "\n"
    }

    fn launch(&self) -> Result<Process> {
        let launch = Launch {
            name: "nats-server",
            program: self.bin.file.clone(),
            args: vec!["-c".into(), self.config_file().display().to_string()],
            cwd: self.scratch.path(),
            log: &self.log(),
            user: None,
            orphan_signal: "KILL",
        };
        Process::start(&launch, |pid| self.ports_file(pid).is_file())
    }
}

fn quote_path(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}
