//! `walgate replicate` as a user runs it: a child process with a SQLite file or a Postgres database.

use std::path::PathBuf;

use crate::{
    Database,
    program::{Program, built},
};

/// Where the copy is.
#[derive(Clone, Debug)]
pub enum Target {
    Sqlite(PathBuf),
    /// URL of a database.
    Postgres(String),
}

/// A replica that was started.
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
        let to = match &target {
            Target::Sqlite(file) => format!("sqlite:{}", file.display()),
            Target::Postgres(url) => url.clone(),
        };
        let mut args: Vec<String> = ["replicate", "--to", &to].map(str::to_owned).into();
        let mut full = vec![
            ("NO_COLOR".to_owned(), "1".to_owned()),
            ("WALGATE_NATS_URL".to_owned(), nats.to_owned()),
        ];
        full.extend(env.iter().cloned());
        let env = full;
        args.extend(tables.iter().flat_map(|table| ["--table".to_owned(), (*table).to_owned()]));
        let program = spawn(&args, &env, &log);
        Replica { target, args, env, log, program }
    }

    pub fn kill9(&self) {
        self.program.kill9();
    }

    /// SIGTERM; it has to end in order.
    pub fn stop(&self) {
        let status = self.program.terminate();
        assert!(status.success(), "the replica ended with {status}");
    }

    /// On the same copy.
    pub fn start_again(&mut self) {
        self.program.kill9();
        self.program = spawn(&self.args, &self.env, &self.log);
    }

    pub fn log(&self) -> String {
        self.program.log()
    }
}

fn spawn(args: &[String], env: &[(String, String)], log: &std::path::Path) -> Program {
    Program::spawn("replica", &built("walgate"), args, env, log)
}

impl Target {
    pub fn database(database: &Database) -> Target {
        Target::Postgres(database.url())
    }

    /// As `walgate` takes it.
    pub fn url(&self) -> String {
        match self {
            Target::Sqlite(file) => format!("sqlite:{}", file.display()),
            Target::Postgres(url) => url.clone(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Target::Sqlite(_) => "SQLite",
            Target::Postgres(_) => "Postgres",
        })
    }
}
