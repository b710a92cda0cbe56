//! `gnomon bench library`: instructions of the shadow MMU alone (`bench/library`), counted by callgrind, and its times by criterion.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use clap::Args;
use gnomon_bench_library::workload::{POLICIES, TIMED, WORKLOADS, Workload};
use serde::{Deserialize, Serialize};

use super::plot::Plot;
use super::results::{Results, Source};
use super::table::figure;
use super::{built_folder, own_folder, provenance, write, write_reports};
use crate::progress;
use crate::status::{Failed, Status};
use crate::workspace;

const FILE: &str = "library.json";
/// Operations of a run; some workloads can do no more.
const COUNT: u64 = 1000;
/// How much more the dearest size may cost than the cheapest where the cost must not depend on it.
const TOLERANCE: f64 = 1.05;

/// Arguments of `gnomon bench library`.
#[derive(Debug, Args)]
pub(super) struct LibraryArgs {
    /// Write library.json, its plots and RESULTS.md into the repository's bench/ as well
    #[arg(long)]
    update: bool,
    /// Measure times as well, by criterion: about four minutes more
    #[arg(long)]
    times: bool,
}

/// All that was measured.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    source: Source,
    rustc: String,
    valgrind: String,
    figures: Vec<Figure>,
}

/// Instructions of the library for one operation of a workload.
#[derive(Debug, Serialize, Deserialize)]
struct Figure {
    workload: String,
    policy: String,
    size: u64,
    operations: u64,
    instructions: f64,
    /// Median time of an operation, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<f64>,
}

/// Measures, prints the table, and fails if a cost grows with what exists.
pub(super) fn run(args: &LibraryArgs) -> anyhow::Result<Status> {
    let source = provenance::source();
    let program = build()?;
    let mut figures = Vec::new();
    for workload in WORKLOADS {
        for policy in POLICIES {
            for &size in workload.sizes {
                progress::note(&format!("{} under {policy}, size {size}", workload.name));
                figures.push(count(&program, workload.name, policy, size)?);
            }
        }
    }
    if args.times {
        time(&mut figures)?;
    }
    let tools = provenance::tools();
    let valgrind = version("valgrind")?;
    let measured = Measured { source, rustc: tools.rustc, valgrind, figures };
    print!("{}", measured.section());
    for folder in std::iter::once(built_folder()).chain(args.update.then(own_folder)) {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write(&folder.join(FILE), &(serde_json::to_string_pretty(&measured)? + "\n"))?;
        for workload in WORKLOADS.iter().filter(|workload| workload.sizes.len() > 1) {
            write(&folder.join(plot_file(workload)), &measured.plot(workload)?)?;
        }
    }
    if args.update {
        write_reports(&Results::load(&own_folder())?, &own_folder())?;
    }
    Ok(measured.verdict())
}

/// The section of RESULTS.md, from the results in a folder; empty if there are none.
pub(super) fn section(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join(FILE)).unwrap_or_default();
    serde_json::from_str::<Measured>(&text).map(|measured| measured.section()).unwrap_or_default()
}

fn build() -> anyhow::Result<std::path::PathBuf> {
    let mut command = workspace::cargo();
    command.args("build --release --locked --quiet -p gnomon-bench-library --bin cost".split(' '));
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        return Err(Failed::tool("the library's benchmark does not build"));
    }
    Ok(workspace::host_target().join("release/cost"))
}

fn version(program: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| Failed::tool(format!("cannot run {program}: {error}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn count(program: &Path, workload: &str, policy: &str, size: u64) -> anyhow::Result<Figure> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"]).arg(program);
    command.args([workload, policy, &size.to_string(), &COUNT.to_string()]).stdin(Stdio::null());
    let output = command.output().map_err(|error| Failed::tool(format!("cannot run valgrind: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let operations = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().ok();
    let counted = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    let (Some(operations), Some(counted)) = (operations, counted) else {
        return Err(Failed::tool(format!("callgrind has counted nothing of {workload}:\n{said}")));
    };
    let instructions = (counted as f64 / operations as f64 * 10.0).round() / 10.0;
    Ok(Figure { workload: workload.into(), policy: policy.into(), size, operations, instructions, time: None })
}

/// Runs criterion, and reads the medians that it leaves.
fn time(figures: &mut [Figure]) -> anyhow::Result<()> {
    progress::note("criterion: times of all workloads");
    let folder = workspace::host_target().join("criterion");
    let mut command = workspace::cargo();
    command.args("bench --quiet --locked -p gnomon-bench-library --bench times -- --quiet --noplot".split(' '));
    let status = command.env("CRITERION_HOME", &folder).stdin(Stdio::null()).stdout(Stdio::null()).status();
    if !status.context("cannot run cargo")?.success() {
        return Err(Failed::tool("the times of the library cannot be measured"));
    }
    for figure in figures {
        let place = [&figure.workload, &figure.policy, &figure.size.to_string(), "new", "estimates.json"];
        let file = place.iter().fold(folder.clone(), |path, part| path.join(part));
        let text = std::fs::read_to_string(&file).with_context(|| format!("no estimates in {}", file.display()))?;
        let estimates: serde_json::Value = serde_json::from_str(&text)?;
        let median = estimates["median"]["point_estimate"].as_f64();
        figure.time = median.map(|whole| (whole / TIMED as f64 * 10.0).round() / 10.0);
    }
    Ok(())
}

fn plot_file(workload: &Workload) -> String {
    format!("library-{}.svg", workload.name)
}

impl Figure {
    fn cell(&self) -> String {
        let instructions = figure(self.instructions.round());
        self.time.map_or_else(|| instructions.clone(), |time| format!("{instructions}; {} ns", figure(time.round())))
    }
}

impl Measured {
    fn of<'a>(&'a self, workload: &'a Workload, policy: &'a str) -> impl Iterator<Item = &'a Figure> + Clone {
        self.figures.iter().filter(move |figure| figure.workload == workload.name && figure.policy == policy)
    }

    fn section(&self) -> String {
        let changed = if self.source.changed { ", **with changes that are not committed**" } else { "" };
        let mut text = format!(
            "\n## The library alone\n\n\
            `scripts/gnomon bench library --update` has written this part from `{FILE}`: instructions of `shadow-mmu` for each operation\n\
            of a 2-level guest in plain arrays (`bench/library`), without exits, emulation and TLB, counted by callgrind ({}).\n\
            Commit `{}`{changed}, {}.\n",
            self.valgrind, self.source.commit, self.rustc
        );
        if self.figures.iter().any(|figure| figure.time.is_some()) {
            text.push_str(
                "After the semicolon the median time in nanoseconds, by criterion on the machine of that day: it tells what is slow, but\n\
                not to the percent.\n",
            );
        }
        let _ = write!(text, "\n| operation | {} |\n|---|{}\n", POLICIES.join(" | "), "---:|".repeat(POLICIES.len()));
        for workload in WORKLOADS {
            for &size in workload.sizes {
                let place = if workload.sizes.len() > 1 {
                    format!("; {} {}", figure(size as f64), workload.size)
                } else {
                    String::new()
                };
                let cells = POLICIES.map(|policy| {
                    let found = self.of(&workload, policy).find(|figure| figure.size == size);
                    found.map_or_else(|| "–".into(), Figure::cell)
                });
                let _ = writeln!(text, "| {}{place} | {} |", workload.describe, cells.join(" | "));
            }
        }
        text.push_str(
            "\nA cost must grow with what changed, not with what exists; the command fails if one of these grows:\n\n",
        );
        for workload in WORKLOADS.iter().filter(|workload| workload.sizes.len() > 1) {
            let _ = writeln!(text, "![instructions by {}]({})", workload.size, plot_file(workload));
        }
        text
    }

    fn plot(&self, workload: &Workload) -> anyhow::Result<String> {
        let series = POLICIES.map(String::from);
        let title = format!("{}, by the number of {}", workload.describe, workload.size);
        let plot = Plot { title: &title, axis: "instructions", series: &series, first: 1 };
        let lines = POLICIES.map(|policy| {
            let point = |figure: &Figure| ((figure.size.max(1) as f64).log2(), figure.instructions);
            self.of(workload, policy).map(point).collect::<Vec<_>>()
        });
        plot.lines(&format!("log2 of the number of {}", workload.size), &lines)
    }

    fn verdict(&self) -> Status {
        let mut status = Status::Ok;
        for (workload, policy) in WORKLOADS.iter().flat_map(|workload| POLICIES.map(|policy| (workload, policy))) {
            let costs = self.of(workload, policy).filter(|figure| figure.size >= workload.flat_from);
            let dearest = costs.clone().map(|figure| figure.instructions).fold(0.0, f64::max);
            let cheapest = costs.map(|figure| figure.instructions).fold(f64::MAX, f64::min);
            if dearest > cheapest * TOLERANCE {
                let name = workload.name;
                progress::error(&format!("{name} under {policy} costs {cheapest} to {dearest} instructions: not flat"));
                status = Status::Guest;
            }
        }
        status
    }
}
