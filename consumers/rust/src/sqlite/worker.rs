//! The thread that owns the connection, and its queue of work. It does not know what the work is.

use tokio::sync::{mpsc, oneshot};

use super::store::Store;
use crate::SinkError;

/// Work that waits while one piece is being done: bodies of a few MiB each.
const QUEUE_JOBS: usize = 2;

type Job = Box<dyn FnOnce(&mut Station) + Send>;

#[derive(Debug)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    thread: std::thread::JoinHandle<()>,
}

struct Station {
    store: Store,
    /// What failed while nobody waited for it.
    failed: Option<SinkError>,
}

impl Worker {
    pub async fn start(
        open: impl FnOnce() -> Result<Store, SinkError> + Send + 'static,
    ) -> Result<Worker, SinkError> {
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
            let mut station = Station { store, failed: None };
            let _ = opened.send(Ok(()));
            while let Some(job) = queue.blocking_recv() {
                job(&mut station);
            }
        };
        let thread = std::thread::Builder::new()
            .name("walgate-sqlite".to_owned())
            .spawn(work)
            .map_err(|e| SinkError::new("starting SQLite's thread", e))?;
        is_open.await.map_err(|_| gone())??;
        Ok(Worker { jobs, thread })
    }

    /// Waits for the result, and for everything before it.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let (reply, result) = oneshot::channel();
        let job = move |station: &mut Station| {
            let result = match station.failed.take() {
                Some(error) => Err(error),
                None => work(&mut station.store),
            };
            // Nobody waits any more when the consumer is being stopped.
            let _ = reply.send(result);
        };
        self.jobs.send(Box::new(job)).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    /// Does not wait: what fails is told by the next call. After a failure nothing more is done until then.
    pub async fn send(
        &self,
        work: impl FnOnce(&mut Store) -> Result<(), SinkError> + Send + 'static,
    ) -> Result<(), SinkError> {
        let job = move |station: &mut Station| {
            if station.failed.is_none() {
                station.failed = work(&mut station.store).err();
            }
        };
        self.jobs.send(Box::new(job)).await.map_err(|_| gone())
    }

    /// Like `call`, and whatever failed before is forgotten.
    pub async fn recover(
        &self,
        work: impl FnOnce(&mut Store) -> Result<(), SinkError> + Send + 'static,
    ) -> Result<(), SinkError> {
        let forget = |station: &mut Station| station.failed = None;
        self.jobs.send(Box::new(forget)).await.map_err(|_| gone())?;
        self.call(work).await
    }

    /// Waits for what is queued.
    pub async fn stop(self) -> Result<(), SinkError> {
        drop(self.jobs);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if matches!(joined, Ok(Ok(()))) { Ok(()) } else { Err(gone()) }
    }
}

fn gone() -> SinkError {
    SinkError::new("SQLite's thread", "has ended unexpectedly")
}
