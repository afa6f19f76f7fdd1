//! A consumer as a user runs it: a child process that keeps a SQLite file or a Postgres database.
//! It is `walgate replicate`, or the consumer in Python.

use std::{path::PathBuf, process::ExitStatus};

use walgate_wire::TableName;

use crate::{
    Database,
    program::{Program, find_built},
    python,
};

/// Where the copy is.
#[derive(Clone, Debug)]
pub enum Target {
    Sqlite(PathBuf),
    /// The URL of a database.
    Postgres(String),
    /// A SQLite file that the consumer in Python keeps.
    Python(PathBuf),
}

/// A started replica.
pub struct Replica {
    pub target: Target,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    program: Program,
}

impl Replica {
    pub(crate) fn start(
        nats: &str,
        target: Target,
        tables: &[&str],
        log: PathBuf,
        env: &[(String, String)],
    ) -> Replica {
        let mut args: Vec<String> = ["replicate", "--to", &target.url()].map(str::to_owned).into();
        let mut full = vec![
            ("NO_COLOR".to_owned(), "1".to_owned()),
            ("WALGATE_NATS_URL".to_owned(), nats.to_owned()),
        ];
        full.extend(env.iter().cloned());
        args.extend(tables.iter().flat_map(|table| ["--table".to_owned(), (*table).to_owned()]));
        Replica::spawn(target, args, full, log)
    }

    /// Without a Python, prints a message and returns `None`.
    pub(crate) fn start_python(
        nats: &str,
        file: PathBuf,
        tables: &[&str],
        log: PathBuf,
    ) -> Option<Replica> {
        let (_, script) = python::consumer()?;
        let db = file.display().to_string();
        let target = Target::Python(file);
        let mut args: Vec<String> =
            [script, "--nats", nats, "--sqlite", &db].map(str::to_owned).into();
        args.extend(
            tables
                .iter()
                .map(|table| table.parse::<TableName>().expect("a table name").token().to_string()),
        );
        Some(Replica::spawn(target, args, vec![], log))
    }

    fn spawn(
        target: Target,
        args: Vec<String>,
        env: Vec<(String, String)>,
        log: PathBuf,
    ) -> Replica {
        let program = Program::spawn("replica", &target.program_path(), &args, &env, &log);
        Replica { target, args, env, log, program }
    }

    pub fn kill9(&self) {
        self.program.kill9();
    }

    /// Sends SIGTERM; the replica has to exit with success.
    pub fn stop(&self) {
        let status = self.program.terminate();
        assert!(status.success(), "the replica ended with {status}");
    }

    /// Starts it again on the same copy.
    pub fn start_again(&mut self) {
        self.run_again(&[]);
    }

    /// Starts it again on the same copy, with further arguments, and waits until it ends by itself.
    pub fn run_until_ended(&mut self, more: &[&str]) -> ExitStatus {
        self.run_again(more);
        self.program.wait_until_ended()
    }

    fn run_again(&mut self, more: &[&str]) {
        self.program.kill9();
        let args: Vec<_> =
            self.args.iter().cloned().chain(more.iter().map(|&arg| arg.to_owned())).collect();
        self.program =
            Program::spawn("replica", &self.target.program_path(), &args, &self.env, &self.log);
    }

    pub fn log(&self) -> String {
        self.program.log()
    }
}

impl Target {
    pub fn database(database: &Database) -> Target {
        Target::Postgres(database.url())
    }

    /// The program that writes the copy.
    fn program_path(&self) -> PathBuf {
        match self {
            Target::Python(_) => python::consumer().expect("a Python").0.to_owned(),
            Target::Sqlite(_) | Target::Postgres(_) => find_built("walgate"),
        }
    }

    /// The target as `walgate` expects it on its command line.
    pub fn url(&self) -> String {
        match self {
            Target::Sqlite(file) | Target::Python(file) => format!("sqlite:{}", file.display()),
            Target::Postgres(url) => url.clone(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Target::Sqlite(_) => "SQLite",
            Target::Postgres(_) => "Postgres",
            Target::Python(_) => "SQLite, by Python,",
        })
    }
}
