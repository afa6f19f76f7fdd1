//! The destination of log lines: standard error. While a screen is drawn there, lines are held
//! back, and printed when the screen is gone.

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Lines beyond this are not held. The first lines usually name the problem.
const HELD_BYTES_MAX: usize = 64 << 10;

static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Vec<u8>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For `tracing_subscriber`: `with_writer(commands::log::lines)`.
pub fn lines() -> impl Write {
    Lines
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match held().as_mut() {
            None => io::stderr().write(bytes),
            Some(held) => {
                if held.len() + bytes.len() <= HELD_BYTES_MAX {
                    held.extend_from_slice(bytes);
                }
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Holds lines back until the result is dropped.
pub fn hold() -> Holding {
    held().get_or_insert_default();
    Holding
}

/// See [`hold`].
#[derive(Debug)]
pub struct Holding;

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(lines) = held().take() {
            // If this fails, there is no other place to report it.
            let _ = io::stderr().write_all(&lines);
        }
    }
}
