//! `cargo xtask fuzz`: runs the targets under libFuzzer, on the installed toolchain. New inputs are
//! put into `target/fuzz`; the committed corpus does not change.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::cargo;

#[derive(Debug, clap::Args)]
pub struct Fuzz {
    /// Targets; all of them if none is named
    targets: Vec<String>,
    /// How long each of them runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Most memory of a process. A decoder that takes more has trusted a length in its input.
const MEMORY_MIB_MAX: u32 = 2048;
const INPUT_BYTES_MAX: u32 = 16 << 10;
/// Slower than this on one input is a finding.
const INPUT_SECONDS_MAX: u32 = 10;

pub fn run(fuzz: &Fuzz) -> Result<ExitCode> {
    let root = Path::new(cargo::ROOT).canonicalize()?;
    let known = list_targets(&root.join("fuzz/corpus"))?;
    if let Some(unknown) = fuzz.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no fuzz target {unknown}: name one of {}", known.join(", "));
    }
    build_targets(&root)?;
    let found = root.join("target/fuzz");
    let chosen = if fuzz.targets.is_empty() { &known } else { &fuzz.targets };
    let mut failed = false;
    println!("{:<12} {:>12} {:>8} {:>8}", "target", "executions", "edges", "corpus");
    for target in chosen {
        let log = found.join(format!("{target}.log"));
        let passed = run_target(&root, target, fuzz.seconds, &log)?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let [executions, edges, corpus] = parse_figures(&text);
        println!("{target:<12} {executions:>12} {edges:>8} {corpus:>8}");
        if !passed {
            failed = true;
            println!(
                "  failed: {}; its input and the reason are in {}",
                find_failure(&text),
                log.display()
            );
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Each target has a folder in the corpus.
fn list_targets(corpus: &Path) -> Result<Vec<String>> {
    let folders = fs::read_dir(corpus).with_context(|| format!("read {}", corpus.display()))?;
    let names = folders.map(|folder| Ok(folder?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// The workspace's crates are built a second time, instrumented. Their dependencies are the tests'.
fn build_targets(root: &Path) -> Result<()> {
    let what = ["build", "--release", "--workspace", "--bin", "fuzz"];
    let mut build =
        cargo::cargo_command(what.into_iter().chain(["--features", "walgate-fuzz/libfuzzer"]));
    let wrapper = root.join("fuzz/instrument.sh");
    let status = build.env("RUSTC_WORKSPACE_WRAPPER", wrapper).status().context("run cargo")?;
    if !status.success() {
        bail!(
            "the fuzz targets were not built; libFuzzer needs a C++ compiler (Debian: apt-get install g++)"
        );
    }
    Ok(())
}

fn run_target(root: &Path, target: &str, seconds: u32, log: &Path) -> Result<bool> {
    let found: PathBuf = root.join("target/fuzz").join(target);
    fs::create_dir_all(&found)?;
    let out = File::create(log).with_context(|| format!("write {}", log.display()))?;
    let mut fuzz: Command = cargo::built_program("fuzz");
    fuzz.env("WALGATE_FUZZ_TARGET", target)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}-", found.display()))
        .args([&found, &root.join("fuzz/corpus").join(target)])
        .stdout(out.try_clone()?)
        .stderr(out);
    Ok(fuzz.status().with_context(|| format!("run fuzz target {target}"))?.success())
}

/// Executions, edges covered and inputs kept, as libFuzzer printed them last.
fn parse_figures(log: &str) -> [&str; 3] {
    let executions =
        log.lines().rev().find_map(|l| l.strip_prefix("stat::number_of_executed_units:"));
    let after = |key: &str| {
        let line = log.lines().rev().find(|line| line.contains(key));
        line.and_then(|line| line.split(key).nth(1)?.split_whitespace().next())
    };
    let corpus = after(" corp: ").and_then(|corpus| corpus.split('/').next());
    [executions.map(str::trim), after(" cov: "), corpus].map(|figure| figure.unwrap_or("-"))
}

fn find_failure(log: &str) -> &str {
    let is_failure =
        |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
    log.lines().find(is_failure).unwrap_or("no message")
}
