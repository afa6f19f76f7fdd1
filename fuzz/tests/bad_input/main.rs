//! Bad input in a fixed amount: what CI runs of the fuzz targets, and what must never fit into memory. One test at a
//! time, since the heap is measured.

mod bombs;
mod mutation;
mod seeded;

use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
