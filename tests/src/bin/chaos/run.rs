//! Runs cases side by side, each on its own thread and runtime, and keeps the outcomes. This file
//! does not know the cases.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::AssertUnwindSafe,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use walgate_servers::PgBin;

use crate::{
    cases::Case,
    report::{Outcome, Report},
};

pub struct Plan {
    pub cases: Vec<&'static Case>,
    pub postgres: Vec<PgBin>,
    pub seed: u64,
    /// In the long form: no case begins after this time.
    pub long: Option<Duration>,
    pub jobs: usize,
}

/// How a case ended without a failure.
#[derive(Debug)]
pub enum Done {
    Passed,
    /// This machine cannot produce the fault, with the reason.
    Skipped(String),
}

/// One run of one case.
pub struct Run {
    pub bin: PgBin,
    pub seed: u64,
    pub is_long: bool,
    random: RefCell<SmallRng>,
    faults: RefCell<Vec<(String, u32)>>,
    peak_mb: Cell<f64>,
}

impl Run {
    pub fn pick<T>(&self, short: T, long: T) -> T {
        if self.is_long { long } else { short }
    }

    /// A number from the seed, which decides where a fault hits.
    pub fn random_in(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.borrow_mut().random_range(range)
    }

    /// Counts a fault for the report.
    pub fn record_fault(&self, what: impl Into<String>) {
        let what = what.into();
        let mut faults = self.faults.borrow_mut();
        match faults.iter_mut().find(|(known, _)| *known == what) {
            Some((_, count)) => *count += 1,
            None => faults.push((what, 1)),
        }
    }

    pub fn peak_mb(&self) -> f64 {
        self.peak_mb.get()
    }

    /// Records the resident memory of a gateway of this run.
    pub fn record_peak_mb(&self, mb: f64) {
        self.peak_mb.set(self.peak_mb.get().max(mb));
    }
}

/// Runs every case; in the long form with one seed after the other. Each seed begins with another
/// version of Postgres.
pub fn run_all(plan: &Plan) -> Vec<Report> {
    let round = &plan.cases;
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(vec![]);
    let began = Instant::now();
    let work = || {
        loop {
            let index = next.fetch_add(1, Relaxed);
            let place = index % round.len();
            let seed = plan.seed + (index / round.len()) as u64;
            let (case, bin) = (
                round[place],
                &plan.postgres[place.wrapping_add(seed as usize) % plan.postgres.len()],
            );
            let over = plan.long.is_none_or(|time| began.elapsed() >= time);
            if index >= round.len() && over {
                return;
            }
            let report = run_isolated(case, bin, seed, plan.long.is_some());
            eprintln!("chaos: {report}");
            reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.min(round.len()) {
            scope.spawn(work);
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place = |report: &Report| plan.cases.iter().position(|case| case.name == report.case);
    reports.sort_by_key(|report| (report.seed, place(report)));
    reports
}

/// Runs a case on its own thread: programs end with the thread that started them.
fn run_isolated(case: &'static Case, bin: &PgBin, seed: u64, is_long: bool) -> Report {
    let bin = bin.clone();
    let name = case.name.to_owned();
    let thread =
        std::thread::Builder::new().name(name).spawn(move || run_case(case, bin, seed, is_long));
    thread.expect("a thread").join().expect("what a case panics with is caught")
}

fn run_case(case: &'static Case, bin: PgBin, seed: u64, is_long: bool) -> Report {
    let began = Instant::now();
    let major = bin.version.major;
    let run = Run {
        bin,
        seed,
        is_long,
        random: RefCell::new(SmallRng::seed_from_u64(seed)),
        faults: RefCell::new(vec![]),
        peak_mb: Cell::new(0.0),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let outcome = match runtime.block_on(AssertUnwindSafe((case.run)(&run)).catch_unwind()) {
        Ok(Done::Passed) => Outcome::Passed,
        Ok(Done::Skipped(why)) => Outcome::Skipped(why),
        Err(panic) => Outcome::Failed(words(&*panic)),
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    Report {
        case: case.name,
        seed,
        postgres: major,
        faults: run.faults.take(),
        outcome,
        seconds: began.elapsed().as_secs_f64(),
        peak_mb: run.peak_mb.get(),
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}
