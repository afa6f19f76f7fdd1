//! The part of fuzzing that CI runs: a fixed amount of seeded inputs, and bodies that expand.
//!
//! Only one test runs at a time, because the tests measure the heap.

mod bombs;
mod mutation;
mod seeded;

use std::sync::{Mutex, MutexGuard, PoisonError};

static HEAP_LOCK: Mutex<()> = Mutex::new(());

fn lock_heap() -> MutexGuard<'static, ()> {
    HEAP_LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}
