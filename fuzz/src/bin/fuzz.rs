//! Runs one target under libFuzzer, which makes the bytes and owns `main`. `WALGATE_FUZZ_TARGET`
//! names the target; the whole command line belongs to libFuzzer.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use walgate_fuzz::{TARGETS, Target, target};

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("WALGATE_FUZZ_TARGET").unwrap_or_default();
        let Some(target) = target(&name) else {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("WALGATE_FUZZ_TARGET is '{name}', must be one of {}", names.join(", "));
            std::process::exit(2);
        };
        CHOSEN.get_or_init(|| target);
    },
    |data: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.run)(data);
        }
    }
);
