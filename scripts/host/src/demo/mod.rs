//! `gnomon demo`: runs the demo guest with the trace on, and tells what happened between a `malloc` in its process and a shadow
//! page-table entry. Everything that is told comes from the records of that run.

mod entry;
mod episode;
mod pick;
mod story;
mod style;
mod tell;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use gnomon_trace::Kind;

use crate::build;
use crate::catalog;
use crate::cli::{DemoArgs, MachineArgs, MachineKind};
use crate::console::Piece;
use crate::guest::Guest;
use crate::image::{Payload, Protocol};
use crate::machine::QUICK_IPS;
use crate::machine::{Machine, RunFolder};
use crate::progress;
use crate::run::{self, Outcome};
use crate::status::{Failed, Status};
use crate::trace::{self, Format, Names};

/// The guest.
const GUEST: &str = "demo";

/// `gnomon demo`.
///
/// # Errors
/// If something cannot be built or run, or the trace does not hold the story.
pub fn run(args: &DemoArgs) -> anyhow::Result<Status> {
    let mut guest = Guest::of(GUEST, catalog::find(GUEST)?);
    // The story is that of a write to a page table that traps.
    guest.words.push("shadow=write-protect".into());
    let payload =
        Payload::gnomon(build::kernel()?, run::kernel_command_line("info", true, &[]), std::slice::from_ref(&guest));
    let machine = machine(args, &guest)?;
    let folder = RunFolder::new()?;
    progress::note("running the demo guest");
    let (mut said, mut log) = (Vec::new(), Vec::new());
    let outcome = run::execute(&machine, &payload, false, &folder, &mut |piece| {
        match piece {
            Piece::Guest(bytes) => said.extend_from_slice(bytes),
            Piece::Line(line) => log.push(format!("[gnomon {}] {}", line.level, line.text)),
        }
        Ok(())
    })?;
    if outcome.status != Status::Ok {
        return Ok(failed(&outcome, &said, &log, &machine));
    }
    let mut names = run::names(std::slice::from_ref(&guest));
    if let Some(file) = &args.trace {
        run::save_trace(&folder.com2(), file, Format::of_file(file), &mut names)?;
    }
    let colour = progress::stdout_colour();
    let options = story::Options { style: style::Style::new(colour), records: args.records };
    let story = compose(&folder.com2(), &mut names, &options)?;
    let mut out = io::stdout().lock();
    writeln!(out, "What the guest printed:")?;
    for line in String::from_utf8_lossy(&said).lines() {
        writeln!(out, "   | {line}")?;
    }
    writeln!(out, "\nWhat happened, from the trace of this run:\n\n{story}")?;
    Ok(Status::Ok)
}

fn machine(args: &DemoArgs, guest: &Guest) -> anyhow::Result<Machine> {
    let arguments = MachineArgs {
        machine: args.machine,
        boot: None,
        host_memory: None,
        cpu: None,
        ips: (args.machine == MachineKind::Bochs).then_some(QUICK_IPS),
        // Makes time stamps count instructions, the same ones in every run. Bochs counts so anyway.
        icount: args.machine == MachineKind::Qemu,
        timeout: Some(args.timeout),
    };
    let mut machine = Machine::new(&arguments, Protocol::Gnomon, run::host_memory(std::slice::from_ref(guest)))?;
    machine.trace = true;
    Ok(machine)
}

fn failed(outcome: &Outcome, said: &[u8], log: &[String], machine: &Machine) -> Status {
    for line in String::from_utf8_lossy(said).lines() {
        eprintln!("   | {line}");
    }
    for line in log {
        eprintln!("{line}");
    }
    run::explain(outcome, false, machine);
    progress::error("the demo guest did not end well; the lines above say how");
    outcome.status
}

fn compose(trace: &Path, names: &mut Names, options: &story::Options) -> anyhow::Result<String> {
    let bytes = fs::read(trace).context("the machine has sent no trace")?;
    let trace = trace::read(&bytes)?;
    trace.records.iter().for_each(|record| names.learn(record));
    let vm = trace.records.iter().find(|record| record.kind == Kind::VmStart).map_or(1, |record| record.vm);
    let episodes = episode::cut(&trace.records, vm);
    let plot = pick::find(&episodes).ok_or_else(|| {
        let exits = episodes.len();
        Failed::tool(format!(
            "the trace ({exits} exits) does not hold a system call that maps a page which is then touched"
        ))
    })?;
    Ok(story::tell(&episodes, plot, names, options)?)
}
