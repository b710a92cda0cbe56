//! `gnomon fuzz`: libFuzzer on the shadow MMU and its model (`tests/fuzz`), with the stock toolchain.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use super::{Verdict, run_program};
use crate::progress;
use crate::status::{Failed, Status};
use crate::workspace;

/// Arguments of `gnomon fuzz`.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// Stop after this time
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = crate::cli::parse_seconds)]
    pub seconds: f64,
    /// Afterwards write the smallest set of inputs that reaches as much to tests/fuzz/corpus.txt
    #[arg(long)]
    pub update: bool,
    /// Run this input alone, and say what happens in it
    #[arg(value_name = "INPUT", conflicts_with = "update")]
    pub input: Option<PathBuf>,
}

/// Instrumentation that rustc's stock LLVM has: edge counters, their addresses, and the operands of comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// With a target named, build scripts are not instrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Bytes that say how the machine is built.
const SETUP: usize = 8;
/// Those, and a hundred events of twelve.
const MAX_LENGTH: usize = SETUP + 100 * 12;
/// Inputs of the committed corpus are shorter, so that it stays small.
const MAX_COMMITTED: usize = SETUP + 32 * 12;

/// Runs `gnomon fuzz`.
///
/// # Errors
/// If the target does not build or cannot be run.
pub fn run(args: &FuzzArgs) -> anyhow::Result<Status> {
    let target = build()?;
    if let Some(input) = &args.input {
        let mut command = Command::new(target);
        return Ok(status(run_program(command.arg(input).env("GNOMON_TELL", "1"))?));
    }
    let verdict = fuzz(&target, args.seconds)?;
    if args.update && matches!(verdict, Verdict::Passed) {
        update(&target)?;
    }
    Ok(status(verdict))
}

/// The step of `gnomon test`.
pub(super) fn step() -> anyhow::Result<Verdict> {
    fuzz(&build()?, 20.0)
}

fn status(verdict: Verdict) -> Status {
    match verdict {
        Verdict::Passed => Status::Ok,
        Verdict::Failed(why) => {
            progress::error(&why);
            Status::Guest
        }
    }
}

fn folder(name: &str) -> PathBuf {
    workspace::host_target().join("fuzz").join(name)
}

fn corpus_file() -> PathBuf {
    workspace::root().join("tests/fuzz/corpus.txt")
}

fn build() -> anyhow::Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--release", "--locked", "--quiet", "--target", TARGET, "--manifest-path"]);
    command.arg(workspace::root().join("tests/fuzz/Cargo.toml")).arg("--target-dir").arg(folder("build"));
    match run_program(command.env("RUSTFLAGS", COVERAGE))? {
        Verdict::Passed => Ok(folder("build").join(TARGET).join("release/gnomon-fuzz")),
        Verdict::Failed(why) => Err(Failed::tool(format!("the fuzz target does not build: {why}"))),
    }
}

/// Writes the committed corpus as the files that libFuzzer wants. Their names are their places in the list.
fn unpack(into: &Path) -> anyhow::Result<usize> {
    let _ = fs::remove_dir_all(into);
    fs::create_dir_all(into)?;
    let text = fs::read_to_string(corpus_file())?;
    let inputs: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for (number, line) in inputs.iter().enumerate() {
        let digits: Vec<u32> = line.chars().filter_map(|digit| digit.to_digit(16)).collect();
        let bytes: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| (high << 4 | low) as u8).collect();
        fs::write(into.join(format!("{number:03}")), bytes)?;
    }
    Ok(inputs.len())
}

fn fuzz(target: &Path, seconds: f64) -> anyhow::Result<Verdict> {
    let (committed, found, crashes) = (folder("committed"), folder("corpus"), folder("crashes/"));
    let known = unpack(&committed)?;
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&crashes)?;
    let mut command = Command::new(target);
    command.arg(format!("-max_total_time={}", seconds.ceil())).arg(format!("-max_len={MAX_LENGTH}"));
    command.args(["-timeout=20", "-print_final_stats=1", "-len_control=20"]);
    command.arg(format!("-artifact_prefix={}/", crashes.display())).arg(found).arg(committed);
    let last = watch(&mut command)?;
    let said = |what: &str| last.iter().rev().find_map(|line| Some(line.split_once(what)?.1.trim().to_owned()));
    let word = |what: &str| said(what).and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
    if let Some(place) = said("Test unit written to ") {
        last.iter().for_each(|line| eprintln!("{line}"));
        return Ok(Verdict::Failed(format!("a guest sees a difference; run it again by `gnomon fuzz {place}`")));
    }
    let number = |what: &str| word(what).unwrap_or_else(|| "?".into());
    let Some(runs) = word("stat::number_of_executed_units:") else {
        last.iter().for_each(|line| eprintln!("{line}"));
        return Ok(Verdict::Failed("the fuzz target ended without its figures".into()));
    };
    let (rate, edges, inputs) = (number("stat::average_exec_per_sec:"), number(" cov: "), number(" corp: "));
    progress::note(&format!(
        "fuzz: {runs} guests ({rate} a second) from {known} committed inputs on; edges reached: {edges}; inputs kept: {inputs}"
    ));
    Ok(Verdict::Passed)
}

/// Runs libFuzzer and keeps its last lines.
fn watch(command: &mut Command) -> anyhow::Result<Vec<String>> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Failed::tool(format!("cannot run the fuzz target: {error}")))?;
    let mut last = std::collections::VecDeque::new();
    for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(|lines| lines.split(b'\n')) {
        if last.len() == 100 {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(&line?).into_owned());
        if crate::interrupt::pending() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failed::interrupted());
        }
    }
    child.wait()?;
    Ok(last.into())
}

/// Merges what was found into the committed corpus.
fn update(target: &Path) -> anyhow::Result<()> {
    let merged = folder("merged");
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged)?;
    let mut command = Command::new(target);
    command.args(["-set_cover_merge=1", &format!("-max_len={MAX_COMMITTED}")]);
    watch(command.arg(&merged).arg(folder("committed")).arg(folder("corpus")))?;
    let mut inputs = Vec::new();
    for entry in fs::read_dir(&merged)? {
        inputs.push(fs::read(entry?.path())?);
    }
    inputs.sort();
    let mut text = String::from(
        "# Inputs of the fuzz target, one a line: the setup, then the events. `scripts/gnomon fuzz --update` writes this file.\n",
    );
    for input in inputs.iter().filter(|input| input.len() <= MAX_COMMITTED) {
        let (setup, events) = input.split_at(input.len().min(SETUP));
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let words: Vec<String> = std::iter::once(setup).chain(events.chunks(12)).map(hex).collect();
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    fs::write(corpus_file(), text)?;
    progress::note(&format!("{} has {} inputs", corpus_file().display(), inputs.len()));
    Ok(())
}
