//! Runs every target on its corpus, and on mutations of it that are the same on every machine.

use std::{fs, path::Path};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use walgate_fuzz::{TARGETS, find_target};

use crate::{lock_heap, mutation::mutate};

const SEED: u64 = 20_261_122;

fn read_corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file")).collect()
}

/// Prints the input if the target fails on it.
struct FailingInput<'a>(&'a str, &'a [u8]);

impl Drop for FailingInput<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let FailingInput(name, input) = self;
            eprintln!("fuzz target {name} fails on {}", input.escape_ascii());
        }
    }
}

/// Runs a target on its corpus and on `rounds` mutations, about a second without optimisation.
fn run_target(name: &str, rounds: usize) {
    let _lock = lock_heap();
    let run = |input: &[u8]| {
        let _failing = FailingInput(name, input);
        (find_target(name).expect("a target").run)(input);
    };
    let corpus = read_corpus(name);
    run(b"");
    corpus.iter().for_each(|input| run(input));
    let mut random = SmallRng::seed_from_u64(SEED);
    for _ in 0..rounds {
        let [input, other] = [(); 2].map(|()| &corpus[random.random_range(0..corpus.len())]);
        run(&mutate(&mut random, input, other));
    }
}

macro_rules! seeded {
    ($($name:ident $rounds:literal)*) => {
        const SEEDED: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            run_target(stringify!($name), $rounds);
        })*
    };
}

seeded! {
    config 2_000
    names 50_000
    pgoutput 20_000
    copy 5_000
    module 2_000
    decisions 50_000
    dictionary 1_000
    frame 5_000
    control 10_000
    changes 5_000
    chunk 5_000
}

#[test]
fn every_target_is_run() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, SEEDED);
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap();
    assert_eq!(folders.count(), names.len(), "a folder of the corpus for each target");
}
