//! Runs one target under libFuzzer, which generates the inputs and owns `main`.
//!
//! `WALGATE_FUZZ_TARGET` names the target. All command line arguments are libFuzzer's.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use walgate_fuzz::{FuzzTarget, TARGETS, find_target};

static CHOSEN: OnceLock<&FuzzTarget> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("WALGATE_FUZZ_TARGET").unwrap_or_default();
        let Some(target) = find_target(&name) else {
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
