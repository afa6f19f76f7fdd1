//! The thread that owns the SQLite connection, and its job queue. It does not know what the jobs
//! do.

use tokio::sync::{mpsc, oneshot};

use super::store::SqliteStore;
use crate::SinkError;

/// Jobs that wait while one is running; each holds a body of a few MiB.
const QUEUE_JOBS: usize = 2;

type Job = Box<dyn FnOnce(&mut WorkerState) + Send>;

#[derive(Debug)]
pub(super) struct SqliteWorker {
    jobs: mpsc::Sender<Job>,
    thread: std::thread::JoinHandle<()>,
}

struct WorkerState {
    store: SqliteStore,
    /// The first error of an enqueued job, for the next call.
    failed: Option<SinkError>,
}

impl SqliteWorker {
    pub async fn start(
        open: impl FnOnce() -> Result<SqliteStore, SinkError> + Send + 'static,
    ) -> Result<SqliteWorker, SinkError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_JOBS);
        let (opened, is_open) = oneshot::channel();
        let work = move || {
            let store = match open() {
                Ok(store) => store,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            let mut station = WorkerState { store, failed: None };
            let _ = opened.send(Ok(()));
            while let Some(job) = queue.blocking_recv() {
                job(&mut station);
            }
        };
        let thread = std::thread::Builder::new()
            .name("walgate-sqlite".to_owned())
            .spawn(work)
            .map_err(|e| SinkError::new("starting SQLite's thread", e))?;
        is_open.await.map_err(|_| thread_ended())??;
        Ok(SqliteWorker { jobs, thread })
    }

    /// Runs a job and waits for its result. Returns the error of an earlier enqueued job instead,
    /// if there is one.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteStore) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let (reply, result) = oneshot::channel();
        let job = move |station: &mut WorkerState| {
            let result = match station.failed.take() {
                Some(error) => Err(error),
                None => work(&mut station.store),
            };
            // The receiver is gone if the consumer is being stopped.
            let _ = reply.send(result);
        };
        self.jobs.send(Box::new(job)).await.map_err(|_| thread_ended())?;
        result.await.map_err(|_| thread_ended())?
    }

    /// Enqueues a job without waiting. The next call returns its error. Until then, no further
    /// enqueued job runs.
    pub async fn enqueue(
        &self,
        work: impl FnOnce(&mut SqliteStore) -> Result<(), SinkError> + Send + 'static,
    ) -> Result<(), SinkError> {
        let job = move |station: &mut WorkerState| {
            if station.failed.is_none() {
                station.failed = work(&mut station.store).err();
            }
        };
        self.jobs.send(Box::new(job)).await.map_err(|_| thread_ended())
    }

    /// Discards the error of an earlier enqueued job, then runs a job and waits for it.
    pub async fn recover(
        &self,
        work: impl FnOnce(&mut SqliteStore) -> Result<(), SinkError> + Send + 'static,
    ) -> Result<(), SinkError> {
        let discard = |station: &mut WorkerState| station.failed = None;
        self.jobs.send(Box::new(discard)).await.map_err(|_| thread_ended())?;
        self.call(work).await
    }

    /// Waits for all jobs and ends the thread.
    pub async fn stop(self) -> Result<(), SinkError> {
        drop(self.jobs);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if matches!(joined, Ok(Ok(()))) { Ok(()) } else { Err(thread_ended()) }
    }
}

fn thread_ended() -> SinkError {
    SinkError::new("SQLite's thread", "has ended unexpectedly")
}
