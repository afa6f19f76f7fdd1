//! Writers that run beside a test until the test stops them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_postgres::{Client, NoTls, error::SqlState};

use crate::{Database, eventually, postgres};

/// The pause between two attempts while Postgres is down.
const RECONNECT_EVERY: Duration = Duration::from_millis(50);

/// A session that runs one script after the other. If Postgres goes down, the writer reconnects and
/// repeats the script whose outcome is unknown.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    held: watch::Sender<bool>,
    rests: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// `script(n)` is the n-th transaction, starting at 0.
    pub async fn start(
        database: &Database,
        script: impl FnMut(u64) -> String + Send + 'static,
    ) -> Writer {
        Writer::start_paced(database, Duration::ZERO, script).await
    }

    /// The same, with a pause after each script.
    pub async fn start_paced(
        database: &Database,
        pause: Duration,
        mut script: impl FnMut(u64) -> String + Send + 'static,
    ) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (held, mut hold) = watch::channel(false);
        let (resting, rests) = watch::channel(false);
        let asked = Arc::clone(&stop);
        let count = Arc::clone(&written);
        let url = database.url();
        let mut client = postgres::connect(&url).await;
        let task = tokio::spawn(async move {
            while !asked.load(Relaxed) {
                if *hold.borrow_and_update() {
                    resting.send_replace(true);
                    let _ = hold.wait_for(|held| !held).await;
                    resting.send_replace(false);
                }
                let number = count.load(Relaxed);
                client = run_script(client, &url, &script(number), &asked).await;
                count.store(number + 1, Relaxed);
                tokio::time::sleep(pause).await;
            }
        });
        Writer { stop, written, held, rests, task }
    }

    /// The number of scripts that were run so far.
    pub fn script_count(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Waits until that many more scripts have run.
    pub async fn wait_for_scripts(&self, more: u64) {
        let goal = self.script_count() + more;
        eventually("the writer writes", async || match self.script_count() {
            written if written >= goal => Ok(()),
            written if self.task.is_finished() => {
                panic!("the writer failed after {written} scripts")
            }
            written => Err(format!("{written} of {goal}")),
        })
        .await;
    }

    /// Returns when the current script has ended; no other begins.
    pub async fn hold(&mut self) {
        self.held.send_replace(true);
        let rests = self.rests.wait_for(|rests| *rests).await;
        drop(rests.expect("the writer did not fail"));
    }

    pub fn resume(&self) {
        self.held.send_replace(false);
    }

    /// Returns how many scripts have run.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.resume();
        self.task.await.expect("the writer did not fail");
        self.written.load(Relaxed)
    }
}

/// Returns the session for the next script.
async fn run_script(mut client: Client, url: &str, script: &str, stop: &AtomicBool) -> Client {
    let mut repeated = false;
    loop {
        match client.batch_execute(script).await {
            Ok(()) => return client,
            // A standby before its promotion counts as down.
            Err(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {}
            Err(_) if is_disconnected(&client).await => {}
            // The first attempt had been committed; the repetition meets its rows.
            Err(_) if repeated => return client,
            Err(error) => panic!("{}\n{script}", postgres::describe_error(&error)),
        }
        repeated = true;
        client = loop {
            if stop.load(Relaxed) {
                return client;
            }
            tokio::time::sleep(RECONNECT_EVERY).await;
            if let Ok((again, connection)) = tokio_postgres::connect(url, NoTls).await {
                tokio::spawn(connection);
                break again;
            }
        };
    }
}

/// Whether the session is lost, rather than a statement refused. A refused statement may leave a
/// transaction open.
async fn is_disconnected(client: &Client) -> bool {
    client.batch_execute("rollback").await.is_err()
}
