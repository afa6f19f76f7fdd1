//! A fixed amount of bad input: the part of fuzzing that CI runs, and inputs that must never fit
//! into memory. One test runs at a time, because the heap is measured.

mod bombs;
mod mutation;
mod seeded;

use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
