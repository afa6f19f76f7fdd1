//! CPU time and memory of a process, from the kernel. This file does not know which program it is.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// `_SC_CLK_TCK` of every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of all threads since its start, seconds; in steps of 10 ms.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid}"))?;
    // The second field is the program's name in brackets and may hold anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// Resident memory, MB of 10⁶ bytes.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    pub now_mb: f64,
    /// The highest since its start. The kernel keeps it, so no peak between two samples is missed.
    pub peak_mb: f64,
}

pub fn resident_memory(pid: u32) -> Result<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid}"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0 / 1e6).with_context(|| format!("process {pid}: no {name}"))
    };
    Ok(Resident { now_mb: field("VmRSS:")?, peak_mb: field("VmHWM:")? })
}

/// Sends SIGKILL to every child of this process, but not to the process itself.
pub fn kill_children(pid: u32) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    for thread in threads.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            kill_process(Pid::from_raw(child).expect("a process"), Signal::KILL).expect("killed");
        }
    }
}

/// The interval between two samples: a measured time may be too long by this much.
pub const LOOK_EVERY: Duration = Duration::from_millis(2);
