//! `gnomon bench`: what the operations of a guest kernel cost, bare and under each way of Gnomon to run it.
//!
//! The guest `bench` (and any other that prints its figures in the same form) runs in each column of a matrix: emulator, back
//! end, policy. Counts of instructions are the same in every run and on every machine, however busy; times are ratios.

mod browser;
mod catalog;
mod column;
mod compare;
mod csv;
mod guard;
mod library;
mod limits;
mod linux;
mod measure;
mod model;
mod page;
mod parse;
mod peer;
mod plot;
mod png;
mod profile;
mod provenance;
mod queue;
mod report;
mod results;
mod table;

pub use guard::check as guard;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use crate::build;
use crate::cli::{MachineKind, parse_seconds, parse_size};
use crate::guest::{Guest, name_of};
use crate::progress;
use crate::status::{Failed, Status};
use crate::workspace;
use column::{Backend, Column, Policy, Wanted, name};
use measure::{Job, Subject};
use results::{Clock, Results, State};

/// The benchmark guest that comes with Gnomon.
const BUILT_IN: &str = "bench";

/// What `gnomon bench` prints on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for a terminal
    Table,
    /// The results with all conditions
    Json,
    /// A line for each figure
    Csv,
}

/// Arguments of `gnomon bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// Something else than measuring
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// Few rounds: done in minutes, with the same counts
    #[arg(long)]
    quick: bool,
    /// The emulators [default: both]
    #[arg(long, value_enum, value_delimiter = ',')]
    machine: Vec<MachineKind>,
    /// Who runs the guest [default: all that the emulators can]
    #[arg(long, value_enum, value_delimiter = ',')]
    backend: Vec<Backend>,
    /// How shadow tables are kept [default: each way]
    #[arg(long, value_enum, value_delimiter = ',')]
    policy: Vec<Policy>,
    /// What is measured [default: both; times on QEMU only]
    #[arg(long, value_enum, value_delimiter = ',')]
    clock: Vec<Clock>,
    /// Only operations whose name begins so
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
    /// Rounds of each operation in a run [default: 5, quick 2; for times 15, quick 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Run this guest as well: one that prints lines `NAME COUNT TICKS`, in rounds
    #[arg(long, value_name = "FILE")]
    guest: Vec<String>,
    /// Memory of those guests (suffixes K, M, G)
    #[arg(short, long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    memory: u64,
    /// Stop a run after this time
    #[arg(long, value_name = "SECONDS", default_value = "900", value_parser = parse_seconds)]
    timeout: f64,
    /// What is printed on stdout
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write results.json, results.csv, RESULTS.md, report.html and plots/ into this folder [default: target/bench]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write results.json, results.csv and RESULTS.md into the repository's bench/ as well
    #[arg(long)]
    update: bool,
}

/// What `gnomon bench` does beside measuring.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Make the reports again from the results in a folder, measuring nothing
    Render {
        /// The folder [default: the repository's bench/; the page and its plots go to target/bench]
        folder: Option<PathBuf>,
    },
    /// Say what changed between two results, and whether it is beyond noise
    Compare {
        /// The folder or results.json to start from
        before: PathBuf,
        /// The one to compare with it
        after: PathBuf,
        /// Only changes of at least this many percent
        #[arg(long, value_name = "PERCENT", default_value_t = 0.5)]
        least: f64,
    },
    /// Look at the report in a browser (Chromium, without a window): save a picture of it, check that its script runs
    Page {
        /// The folder with report.html [default: target/bench]
        folder: Option<PathBuf>,
    },
    /// Count the instructions of the shadow MMU alone, without a machine
    Library(library::LibraryArgs),
    /// Boot Debian's kernels to a shell and start 500 processes there, bare and under each policy
    Linux(linux::LinuxArgs),
    /// Say which functions of the hypervisor an operation's instructions are
    Profile(profile::ProfileArgs),
    /// Check a small set of operations against bench/baseline.json, as CI does
    Guard {
        /// Take what is measured as the new baseline
        #[arg(long)]
        accept: bool,
    },
}

/// `gnomon bench`.
///
/// # Errors
/// If something cannot be built or started, or an argument is wrong.
pub fn run(args: &BenchArgs) -> anyhow::Result<Status> {
    match &args.command {
        Some(BenchCommand::Render { folder }) => {
            let from = folder.clone().unwrap_or_else(own_folder);
            let results = Results::load(&from)?;
            write_reports(&results, &from)?;
            page::save(&results, &folder.clone().unwrap_or_else(built_folder))?;
            Ok(Status::Ok)
        }
        Some(BenchCommand::Compare { before, after, least }) => compare::run(before, after, *least),
        Some(BenchCommand::Page { folder }) => browser::check(&folder.clone().unwrap_or_else(built_folder)),
        Some(BenchCommand::Library(args)) => library::run(args),
        Some(BenchCommand::Linux(args)) => linux::run(args),
        Some(BenchCommand::Profile(args)) => profile::run(args),
        Some(BenchCommand::Guard { accept }) => guard::run(*accept),
        None => measure_all(args),
    }
}

/// The repository's folder of results.
fn own_folder() -> PathBuf {
    workspace::root().join("bench")
}

/// Where results go when nothing else is said.
fn built_folder() -> PathBuf {
    workspace::host_target().join("bench")
}

fn measure_all(args: &BenchArgs) -> anyhow::Result<Status> {
    let jobs = args.jobs()?;
    if jobs.is_empty() {
        return Err(Failed::usage("no column is left: see gnomon bench --help for what goes together"));
    }
    // Once: the sources may change while the benchmarks run.
    let kernel = build::kernel()?;
    let (source, tools) = (provenance::source(), provenance::tools());
    let runs = queue::run(&jobs, &kernel)?;
    let results = Results { command: args.line(), source, tools, runs };
    print(&results, args.format)?;
    let folder = args.out.clone().unwrap_or_else(built_folder);
    for folder in std::iter::once(&folder).chain(args.update.then(own_folder).as_ref()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write(&folder.join(results::FILE), &results.json()?)?;
        write_reports(&results, folder)?;
    }
    page::save(&results, &folder)?;
    Ok(verdict(&results))
}

/// Failed runs and counts that are not the same twice are errors; a column that is not there is none.
fn verdict(results: &Results) -> Status {
    let mut status = Status::Ok;
    let mut absent: Vec<Column> = Vec::new();
    for run in &results.runs {
        let what = format!("{}: {}", run.guest, run.column.describe());
        match &run.state {
            State::NotOffered { .. } if absent.contains(&run.column) => {}
            State::Measured if run.identical == Some(false) => {
                progress::error(&format!("{what}: two runs did not print the same counts"));
                status = Status::Guest;
            }
            State::Measured => {}
            State::NotOffered { why } => {
                absent.push(run.column);
                progress::note(&format!("{}: not offered ({why})", run.column.describe()));
            }
            State::Failed { why } => {
                progress::error(&format!("{what}: {why}"));
                status = Status::Guest;
            }
        }
    }
    let repeated = results.runs.iter().filter(|run| run.identical == Some(true)).count();
    if repeated > 0 {
        progress::note(&format!("{repeated} runs were done twice and printed the same bytes twice"));
    }
    status
}

fn print(results: &Results, format: Format) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Json => out.write_all(results.json()?.as_bytes())?,
        Format::Csv => out.write_all(csv::text(results).as_bytes())?,
        Format::Table => out.write_all(report::terminal(results).as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

fn write_reports(results: &Results, folder: &Path) -> anyhow::Result<()> {
    write(&folder.join(csv::FILE), &csv::text(results))?;
    write(&folder.join(report::FILE), &whole_report(results, folder))
}

/// The report with the sections about what other files of the folder hold.
fn whole_report(results: &Results, folder: &Path) -> String {
    report::markdown(results) + &library::section(folder) + &linux::section(folder)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    write_message(path);
    Ok(())
}

fn write_message(path: &Path) {
    progress::note(&format!("wrote {}", path.display()));
}

impl BenchArgs {
    /// Everything to be run, counts before times.
    fn jobs(&self) -> anyhow::Result<Vec<Job>> {
        let wanted = Wanted { machines: &self.machine, backends: &self.backend, policies: &self.policy };
        let columns = Column::matrix(wanted);
        let files: Vec<Subject> =
            self.guest.iter().map(|file| self.other_guest(file)).collect::<anyhow::Result<_>>()?;
        let mut jobs = Vec::new();
        for clock in [Clock::Count, Clock::Wall] {
            if !self.clock.is_empty() && !self.clock.contains(&clock) {
                continue;
            }
            let built_in = built_in(&self.arguments(clock))?;
            for subject in std::iter::once(&built_in).chain(&files) {
                // Bochs' clock knows instructions only.
                let columns = columns.iter().filter(|c| clock == Clock::Count || c.machine == MachineKind::Qemu);
                jobs.extend(columns.map(|&column| Job {
                    subject: subject.clone(),
                    column,
                    clock,
                    repeats: self.repeats(clock, column.machine),
                    timeout: self.timeout,
                }));
            }
        }
        Ok(jobs)
    }

    /// Counts are read twice, to see that they are the same; with `--quick` on QEMU only, where that takes seconds.
    fn repeats(&self, clock: Clock, machine: MachineKind) -> u32 {
        let twice = clock == Clock::Count && !(self.quick && machine == MachineKind::Bochs);
        if twice { 2 } else { 1 }
    }

    /// Arguments of the built-in guest.
    fn arguments(&self, clock: Clock) -> String {
        let rounds = self.rounds.unwrap_or(match (clock, self.quick) {
            (Clock::Count, false) => 5,
            (Clock::Count, true) => 2,
            (Clock::Wall, false) => 15,
            (Clock::Wall, true) => 5,
        });
        let only = self.only.as_ref().map(|prefix| format!(" only={prefix}")).unwrap_or_default();
        format!("rounds={rounds}{only}")
    }

    fn other_guest(&self, file: &str) -> anyhow::Result<Subject> {
        let (found, name) = (crate::catalog::find(file)?, name_of(file));
        if name == BUILT_IN {
            return Err(Failed::usage(format!("--guest {file}: there is another guest of this name")));
        }
        let guest = Guest { memory: self.memory, ..Guest::of(&name, found) };
        Ok(Subject { guest, image: file_name(file) })
    }

    /// The command line, without the folders of this machine.
    fn line(&self) -> String {
        fn list<T: ValueEnum + Copy>(option: &str, values: &[T]) -> String {
            let names: Vec<String> = values.iter().copied().map(name).collect();
            if names.is_empty() { String::new() } else { format!(" --{option} {}", names.join(",")) }
        }
        let mut line = String::from("scripts/gnomon bench");
        line.push_str(if self.quick { " --quick" } else { "" });
        line.push_str(&list("machine", &self.machine));
        line.push_str(&list("backend", &self.backend));
        line.push_str(&list("policy", &self.policy));
        line.push_str(&list("clock", &self.clock));
        line.extend(self.only.iter().map(|prefix| format!(" --only {prefix}")));
        line.extend(self.rounds.map(|rounds| format!(" --rounds {rounds}")));
        line.extend(self.guest.iter().map(|guest| format!(" --guest {}", file_name(guest))));
        if !self.guest.is_empty() {
            line.push_str(&format!(" --memory {}M", self.memory >> 20));
        }
        line + " --update"
    }
}

/// The guest that comes with Gnomon, with these arguments.
fn built_in(arguments: &str) -> anyhow::Result<Subject> {
    let listed = gnomon_guests::GUESTS.iter().find(|guest| guest.name == BUILT_IN);
    let memory = listed.map_or(96, |guest| u64::from(guest.memory)) << 20;
    let guest =
        Guest { memory, arguments: arguments.to_owned(), ..Guest::of(BUILT_IN, crate::catalog::find(BUILT_IN)?) };
    Ok(Subject { guest, image: BUILT_IN.into() })
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}
