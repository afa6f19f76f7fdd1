//! The display of the demo: a live table on a terminal, otherwise a line each second.
//!
//! Runs on its own thread, so that a slow terminal slows nothing else. It only reads the board.

mod lines;
mod screen;

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use tokio::sync::watch;

use crate::board::Board;

/// The kind of display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Screen,
    Lines,
}

impl Style {
    /// A screen needs a terminal for output, and for keys.
    pub fn fitting(unattended: bool) -> Style {
        let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if terminal && !unattended { Style::Screen } else { Style::Lines }
    }
}

/// A running display.
#[derive(Debug)]
pub struct View {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl View {
    /// `quit` becomes true when the reader ends the demo.
    pub fn show(style: Style, board: Board, quit: watch::Sender<bool>) -> View {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = std::thread::spawn(move || match style {
            Style::Screen => {
                if let Err(error) = screen::show(&board, &quit, &until) {
                    tracing::warn!(%error, "the terminal cannot be drawn on, going on with lines");
                    lines::show(&board, &until);
                }
            }
            Style::Lines => lines::show(&board, &until),
        });
        View { ended, thread: Some(thread) }
    }

    /// Restores the terminal.
    pub fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.stop();
    }
}
