//! Writers that run beside a test until they are told to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::task::JoinHandle;

use crate::{Database, eventually};

/// A session that writes one script after the other.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Writer {
    /// `script(n)` is the n-th transaction, counted from 0.
    pub async fn start(
        database: &Database,
        mut script: impl FnMut(u64) -> String + Send + 'static,
    ) -> Writer {
        let session = database.session().await;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (asked, count) = (Arc::clone(&stop), Arc::clone(&written));
        let task = tokio::spawn(async move {
            while !asked.load(Relaxed) {
                let number = count.load(Relaxed);
                session.sql(&script(number)).await;
                count.store(number + 1, Relaxed);
            }
        });
        Writer { stop, written, task }
    }

    /// Scripts that were run so far.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Waits until that many more scripts were run.
    pub async fn writes(&self, more: u64) {
        let goal = self.written() + more;
        eventually("the writer writes", async || match self.written() {
            written if written >= goal => Ok(()),
            written if self.task.is_finished() => {
                panic!("the writer failed after {written} scripts")
            }
            written => Err(format!("{written} of {goal}")),
        })
        .await;
    }

    /// Returns how many scripts were run.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.task.await.expect("the writer did not fail");
        self.written.load(Relaxed)
    }
}
