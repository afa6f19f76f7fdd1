//! `walgate run` as an operator runs it: configuration file, environment, signals, `/readyz`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;
use walgate_servers::free_port;

use crate::{
    eventually,
    program::{Program, find_built},
};

/// The options of a gateway before its start.
#[derive(Clone)]
pub struct GatewayOptions {
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
    pub(crate) postgres: String,
    pub(crate) slot: String,
    pub(crate) publication: String,
    /// Absent: the gateway starts a private server.
    pub(crate) nats: Option<String>,
    pub(crate) tables: Vec<(String, Option<String>)>,
    pub(crate) env: Vec<(String, String)>,
    /// Further keys of a table, as lines of the file.
    pub(crate) keys: Vec<(String, String)>,
}

/// A started gateway.
pub struct Gateway {
    program: Program,
    options: GatewayOptions,
    port: u16,
}

/// How a gateway ended that stopped at an error.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub output: String,
}

impl GatewayOptions {
    /// Sets any key through the environment: `("COMPRESSION_ENABLED", "false")`.
    pub fn set_env(mut self, key: &str, value: impl ToString) -> Self {
        self.env.push((format!("WALGATE_{key}"), value.to_string()));
        self
    }

    pub fn with_alias(mut self, table: &str, alias: &str) -> Self {
        self.tables.retain(|(name, _)| name != table);
        self.tables.push((table.to_owned(), Some(alias.to_owned())));
        self
    }

    pub fn with_table(mut self, table: &str) -> Self {
        self.tables.push((table.to_owned(), None));
        self
    }

    /// Further keys of a table: `("users", "on_guest_error = 'drop'")`.
    pub fn with_keys(mut self, table: &str, lines: &str) -> Self {
        self.keys.push((table.to_owned(), lines.to_owned()));
        self
    }

    pub fn with_postgres_url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.postgres);
        self
    }

    /// Without `nats.url`: the gateway starts a private server on this port.
    pub fn with_private_nats(mut self, port: u16) -> Self {
        self.nats = None;
        self.set_env("NATS_PORT", port)
    }

    /// For a second gateway beside the first: another log and another port.
    pub fn with_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Starts the gateway and waits until it streams.
    pub async fn start(self) -> Gateway {
        let gateway = self.spawn();
        gateway.wait_until_ready().await;
        gateway
    }

    pub fn spawn(self) -> Gateway {
        let port = free_port().expect("a free port");
        let program = self.program(port);
        Gateway { program, options: self, port }
    }

    /// Runs the gateway to its end. It does not wait for servers.
    pub fn run_to_end(self) -> Ended {
        let this = self.set_env("START_WAIT_SECONDS", 0);
        let program = this.program(free_port().expect("a free port"));
        let code = program.wait_until_ended().code();
        Ended { code, output: program.log() }
    }

    /// Only writes the configuration file, for a command that reads it.
    pub fn write_config(&self) -> PathBuf {
        self.write_config_with(0)
    }

    fn write_config_with(&self, port: u16) -> PathBuf {
        let config = self.folder.join(format!("{}.toml", self.name));
        fs::write(&config, self.config_text(port)).expect("a configuration file");
        config
    }

    fn program(&self, port: u16) -> Program {
        let config = self.write_config_with(port);
        let args = ["run", "-c", &config.display().to_string()].map(str::to_owned);
        let mut env = self.env.clone();
        env.push(("NO_COLOR".into(), "1".into()));
        Program::spawn(&self.name, &find_built("walgate"), &args, &env, &self.log())
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn config_text(&self, port: u16) -> String {
        // A Rust string literal is a TOML string for every name that is used here.
        let folder = self.folder.join("dictionaries");
        let guests = self.folder.join("guests");
        let data = self.folder.join(format!("{}-data", self.name));
        let nats = self.nats.iter().map(|url| format!("url = {url:?}\n")).collect::<String>();
        let mut toml = format!(
            "data_dir = {data:?}\n\
             [postgres]\nurl = {:?}\nslot = {:?}\npublication = {:?}\n\
             [nats]\n{nats}\
             [compression]\ndictionaries = {folder:?}\n\
             [guests]\ndir = {guests:?}\n\
             [snapshot]\ncooldown_seconds = 0\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\n",
            self.postgres, self.slot, self.publication,
        );
        for (name, alias) in &self.tables {
            toml += &format!("[[tables]]\nname = '{name}'\n");
            if let Some(alias) = alias {
                toml += &format!("alias = '{alias}'\n");
            }
            for (_, lines) in self.keys.iter().filter(|(table, _)| table == name) {
                toml += &format!("{lines}\n");
            }
        }
        toml
    }
}

impl Gateway {
    /// Waits until the gateway streams; returns the body of `/readyz`.
    pub async fn wait_until_ready(&self) -> Value {
        eventually("the gateway is ready", async || match self.readyz() {
            Ok((200, body)) => Ok(body),
            Ok((status, body)) => Err(format!("{status} {body}")),
            Err(reason) => Err(reason),
        })
        .await
    }

    /// The URL of its HTTP server.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Status and body.
    pub fn readyz(&self) -> Result<(u16, Value), String> {
        let (status, body) = self.get("/readyz").map_err(|e| e.to_string())?;
        let body = serde_json::from_str(&body).map_err(|e| format!("{body}: {e}"))?;
        Ok((status, body))
    }

    /// Status and body of any page.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        self.request("GET", path)
    }

    /// Any method, without a body.
    pub fn request(&self, method: &str, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Ok((status, body.to_owned()))
    }

    pub fn kill9(self) -> GatewayOptions {
        self.program.kill9();
        self.options.clone()
    }

    /// Sends SIGTERM; the gateway has to exit with success.
    pub fn stop(self) -> GatewayOptions {
        let status = self.program.terminate();
        assert!(status.success(), "the gateway ended with {status}");
        self.options.clone()
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn log(&self) -> String {
        self.program.log()
    }
}
