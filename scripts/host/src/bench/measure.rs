//! One run of a benchmark guest: an emulator that counts instructions, with Gnomon or without.

use std::path::Path;
use std::time::{Duration, Instant};

use super::parse;
use super::results::{Run, Under};
use crate::cli::{MachineArgs, MachineKind};
use crate::console::Piece;
use crate::guest::Guest;
use crate::image::Payload;
use crate::machine::{Machine, RunFolder};
use crate::progress;
use crate::run::{self, Outcome};
use crate::status::{Failed, Status};

/// How often a long run says how far it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// A benchmark guest.
#[derive(Debug)]
pub(super) struct Subject {
    /// What is booted.
    pub(super) guest: Guest,
    /// What `gnomon run` calls it.
    pub(super) image: String,
}

/// Where it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The emulator.
    pub(super) machine: MachineKind,
    /// With or without Gnomon.
    pub(super) under: Under,
}

impl Place {
    /// In words.
    pub(super) fn describe(self) -> String {
        let under = if self.under == Under::Bare { "bare" } else { "under Gnomon" };
        format!("{under} on {}", machine_name(self.machine))
    }
}

/// The emulator's proper name.
pub(super) fn machine_name(machine: MachineKind) -> &'static str {
    match machine {
        MachineKind::Qemu => "QEMU",
        MachineKind::Bochs => "Bochs",
    }
}

/// Runs the guest to its end; under Gnomon with this `kernel`.
///
/// # Errors
/// If it cannot be started, does not end well within `timeout` (in seconds), or prints no figures. Half a result would look
/// like a whole one in a table.
pub(super) fn measure(subject: &Subject, kernel: &Path, place: Place, timeout: f64) -> anyhow::Result<Run> {
    let bare = place.under == Under::Bare;
    let guests = std::slice::from_ref(&subject.guest);
    let (payload, memory) = if bare {
        (Payload::bare(&subject.guest), subject.guest.memory)
    } else {
        let words = run::kernel_command_line("info", false, &[]);
        (Payload::gnomon(kernel.to_owned(), words, guests), run::host_memory(guests))
    };
    let machine = machine(place.machine, memory, timeout)?;
    let folder = RunFolder::new()?;
    let (mut said, mut log) = (Vec::new(), Vec::new());
    let mut reported = Instant::now();
    let outcome = run::execute(&machine, &payload, bare, &folder, &mut |piece| {
        match piece {
            Piece::Guest(bytes) => said.extend_from_slice(bytes),
            Piece::Line(line) => log.push(format!("[gnomon {}] {}", line.level, line.text)),
        }
        if reported.elapsed() > PATIENCE {
            reported = Instant::now();
            progress::note(&format!("   {} operations so far", parse::counts(&String::from_utf8_lossy(&said)).len()));
        }
        Ok(())
    })?;
    if outcome.status != Status::Ok {
        for line in String::from_utf8_lossy(&said).lines().map(str::to_owned).chain(log) {
            eprintln!("   | {line}");
        }
        run::explain(&outcome, bare, &machine);
        return Err(failed(subject, place, &outcome));
    }
    let counts = parse::counts(&String::from_utf8_lossy(&said));
    if counts.is_empty() {
        let why = "prints no figures (lines `name: ticks.00` or `name iterations ticks`)";
        return Err(Failed::usage(format!("{} {why}", subject.guest.name)));
    }
    Ok(Run { machine: place.machine, under: place.under, command: command(subject, place), counts })
}

fn machine(kind: MachineKind, memory: u64, timeout: f64) -> anyhow::Result<Machine> {
    let arguments = MachineArgs {
        machine: kind,
        boot: None,
        host_memory: None,
        cpu: None,
        // Bochs counts instructions anyway.
        icount: kind == MachineKind::Qemu,
        timeout: Some(timeout),
    };
    Machine::new(&arguments, memory)
}

fn failed(subject: &Subject, place: Place, outcome: &Outcome) -> anyhow::Error {
    let why = format!("{} {}: did not end well, so nothing is reported", subject.guest.name, place.describe());
    if outcome.status == Status::Interrupted { Failed::interrupted() } else { Failed::with(outcome.status, why) }
}

/// The command that runs the same again, by hand.
fn command(subject: &Subject, place: Place) -> String {
    let mut command = format!("scripts/gnomon run {} -m {}M", subject.image, subject.guest.memory >> 20);
    command.push_str(match place.machine {
        MachineKind::Qemu => " --icount",
        MachineKind::Bochs => " --machine bochs",
    });
    if place.under == Under::Bare {
        command.push_str(" --bare");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_no_folder() {
        let guest = Guest { memory: 64 << 20, ..Guest::new("nanobench", Path::new("/somewhere/nanobench.elf")) };
        let subject = Subject { guest, image: "nanobench.elf".into() };
        let on = |machine, under| command(&subject, Place { machine, under });
        assert_eq!(on(MachineKind::Qemu, Under::Gnomon), "scripts/gnomon run nanobench.elf -m 64M --icount");
        let bochs = "scripts/gnomon run nanobench.elf -m 64M --machine bochs --bare";
        assert_eq!(on(MachineKind::Bochs, Under::Bare), bochs);
    }
}
