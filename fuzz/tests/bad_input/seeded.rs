//! Runs every target over its corpus, and over mutations that are the same on every machine.

use std::{fs, path::Path};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use walgate_fuzz::{TARGETS, target};

use crate::{alone, mutation::mutated};

const SEED: u64 = 20_261_122;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file")).collect()
}

/// Prints the input at which a target panicked.
struct Culprit<'a>(&'a str, &'a [u8]);

impl Drop for Culprit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Culprit(name, input) = self;
            eprintln!("fuzz target {name} fails on {}", input.escape_ascii());
        }
    }
}

/// `rounds`: mutations beside the corpus itself; about a second without optimisation.
fn run(name: &str, rounds: usize) {
    let _alone = alone();
    let run = |input: &[u8]| {
        let _culprit = Culprit(name, input);
        (target(name).expect("a target").run)(input);
    };
    let corpus = corpus(name);
    run(b"");
    corpus.iter().for_each(|input| run(input));
    let mut random = SmallRng::seed_from_u64(SEED);
    for _ in 0..rounds {
        let [input, other] = [(); 2].map(|()| &corpus[random.random_range(0..corpus.len())]);
        run(&mutated(&mut random, input, other));
    }
}

macro_rules! seeded {
    ($($name:ident $rounds:literal)*) => {
        const SEEDED: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            run(stringify!($name), $rounds);
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
