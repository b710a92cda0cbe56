//! `gnomon bench`: what the operations of a guest kernel cost under Gnomon, in instructions, beside what they cost bare. Runs
//! the guest `bench-exits` and any other that prints its figures, and can write them to `bench/`.
//!
//! Figures are instruction counts, not times: they are the same in every run and on every machine, however busy.

mod measure;
mod parse;
mod peer;
mod provenance;
mod report;
mod results;
mod table;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::build;
use crate::cli::{MachineKind, parse_seconds, parse_size};
use crate::guest::{Guest, name_of};
use crate::progress;
use crate::status::{Failed, Status};
use crate::workspace;
use measure::{Place, Subject, machine_name};
use results::{GuestResults, Results, Under};

/// The benchmark guest that comes with Gnomon.
const BUILT_IN: &str = "bench-exits";

/// Arguments of `gnomon bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The emulators
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [MachineKind::Qemu, MachineKind::Bochs])]
    pub machine: Vec<MachineKind>,
    /// Run this guest as well: one that prints lines `NAME ITERATIONS TICKS`, in rounds
    #[arg(long, value_name = "FILE")]
    pub guest: Vec<String>,
    /// Memory of those guests (suffixes K, M, G)
    #[arg(short, long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    pub memory: u64,
    /// Stop a run after this time
    #[arg(long, value_name = "SECONDS", default_value = "900", value_parser = parse_seconds)]
    pub timeout: f64,
    /// Write the figures to the repository's bench/results.json, and the report bench/RESULTS.md from them
    #[arg(long)]
    pub update: bool,
    /// The same in another folder
    #[arg(long, value_name = "DIR", conflicts_with = "update")]
    pub out: Option<PathBuf>,
    /// Measure nothing: make the report again from the results that are there
    #[arg(long, conflicts_with_all = ["machine", "guest", "memory", "timeout", "update"])]
    pub render: bool,
}

impl BenchArgs {
    /// The folder for results, if they are to be kept.
    fn folder(&self) -> Option<PathBuf> {
        let own = || (self.update || self.render).then(|| workspace::root().join("bench"));
        self.out.clone().or_else(own)
    }

    /// The emulators, each once.
    fn machines(&self) -> impl Iterator<Item = MachineKind> + use<'_> {
        [MachineKind::Qemu, MachineKind::Bochs].into_iter().filter(|machine| self.machine.contains(machine))
    }

    /// The command line, without the folders of this machine.
    fn command(&self) -> String {
        let mut command = String::from("scripts/gnomon bench --machine ");
        let machines: Vec<_> = self.machines().map(|machine| machine_name(machine).to_lowercase()).collect();
        command.push_str(&machines.join(","));
        for guest in &self.guest {
            command.push_str(" --guest ");
            command.push_str(&file_name(guest));
        }
        if !self.guest.is_empty() {
            command.push_str(&format!(" --memory {}M", self.memory >> 20));
        }
        command + " --update"
    }
}

/// `gnomon bench`.
///
/// # Errors
/// If something cannot be built or run, or a guest does not end well.
pub fn run(args: &BenchArgs) -> anyhow::Result<Status> {
    let folder = args.folder();
    if let Some(folder) = folder.as_deref().filter(|_| args.render) {
        report(&Results::load(folder)?, folder)?;
        return Ok(Status::Ok);
    }
    let mut results = Results {
        command: args.command(),
        source: provenance::source(),
        tools: provenance::tools(),
        guests: Vec::new(),
    };
    let subjects = subjects(args)?;
    // Once: the sources may change while the benchmarks run.
    let kernel = build::kernel()?;
    for subject in subjects {
        let guest = measure_guest(&subject, &kernel, args)?;
        print(&guest)?;
        results.guests.push(guest);
    }
    if let Some(folder) = folder {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        results.save(&folder)?;
        report(&results, &folder)?;
    }
    Ok(Status::Ok)
}

fn report(results: &Results, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(report::FILE);
    std::fs::write(&path, report::markdown(results)).with_context(|| format!("cannot write {}", path.display()))?;
    progress::note(&format!("wrote {}", path.display()));
    Ok(())
}

fn subjects(args: &BenchArgs) -> anyhow::Result<Vec<Subject>> {
    let listed = gnomon_guests::GUESTS.iter().find(|guest| guest.name == BUILT_IN);
    let memory = listed.map_or(args.memory, |guest| u64::from(guest.memory) << 20);
    let guest = Guest { memory, ..Guest::new(BUILT_IN, &build::find_image(BUILT_IN)?) };
    let mut subjects = vec![Subject { guest, image: BUILT_IN.into() }];
    for file in &args.guest {
        let kernel = build::find_image(file)?;
        let image = file_name(file);
        let name = name_of(file);
        if subjects.iter().any(|subject| subject.guest.name == name) {
            return Err(Failed::usage(format!("--guest {file}: there is another guest of this name")));
        }
        let guest = Guest { memory: args.memory, ..Guest::new(&name, &kernel) };
        subjects.push(Subject { guest, image });
    }
    Ok(subjects)
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn measure_guest(subject: &Subject, kernel: &Path, args: &BenchArgs) -> anyhow::Result<GuestResults> {
    let mut runs = Vec::new();
    for machine in args.machines() {
        for under in [Under::Bare, Under::Gnomon] {
            let place = Place { machine, under };
            let what = format!("{} {}", subject.guest.name, place.describe());
            runs.push(progress::step(&what, || measure::measure(subject, kernel, place, args.timeout))?);
        }
    }
    Ok(GuestResults { name: subject.guest.name.clone(), memory_mib: subject.guest.memory >> 20, runs })
}

fn print(guest: &GuestResults) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for machine in guest.machines() {
        let table = table::of_guest(guest, machine);
        writeln!(out, "{} on {}, instructions for each operation\n", guest.name, machine_name(machine))?;
        writeln!(out, "{}", table.plain())?;
    }
    out.flush()
}
