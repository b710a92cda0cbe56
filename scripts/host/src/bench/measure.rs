//! One run of a benchmark guest in one column.

use std::path::Path;
use std::time::{Duration, Instant};

use super::column::Column;
use super::parse::Recorder;
use super::results::{Clock, Run, State};
use crate::cli::{MachineArgs, MachineKind};
use crate::console::Piece;
use crate::guest::Guest;
use crate::image::{Payload, Protocol};
use crate::machine::QUICK_IPS;
use crate::machine::{Machine, RunFolder};
use crate::profile::Profile;
use crate::progress;
use crate::run;
use crate::status::{Failed, Status};

/// Why a run of a guest that is none for benchmarks, or has no such operation, failed.
pub(super) const NO_FIGURES: &str = "prints no figures (lines `name count ticks`)";
/// How often a long run says how far it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// A benchmark guest.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// What is booted, arguments included.
    pub(super) guest: Guest,
    /// What `gnomon run` calls it.
    pub(super) image: String,
}

/// A run to be done.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The guest.
    pub(super) subject: Subject,
    /// What it runs on.
    pub(super) column: Column,
    /// What is read.
    pub(super) clock: Clock,
    /// How often it runs.
    pub(super) repeats: u32,
    /// Limit of one run in seconds.
    pub(super) timeout: f64,
}

/// How one boot ended.
#[derive(Debug)]
pub(super) enum Boot {
    /// With figures.
    Done(Recorder),
    /// Without; why.
    Not(State),
}

impl Job {
    /// In words.
    pub(super) fn describe(&self) -> String {
        let clock = if self.clock == Clock::Wall { ", timed" } else { "" };
        format!("{}: {}{clock}", self.subject.guest.name, self.column.describe())
    }

    /// Runs the guest to its end, as often as wanted; under Gnomon with this `kernel`.
    ///
    /// # Errors
    /// As [`Self::boot`].
    pub(super) fn run(&self, kernel: &Path) -> anyhow::Result<Run> {
        let boots = (0..self.repeats).map(|_| self.boot(kernel)).collect::<anyhow::Result<_>>()?;
        Ok(self.joined(boots))
    }

    /// What all boots of this job have found.
    pub(super) fn joined(&self, boots: Vec<Boot>) -> Run {
        let mut all: Option<Recorder> = None;
        let mut identical = (self.repeats > 1).then_some(true);
        let mut state = State::Measured;
        for boot in boots {
            match boot {
                Boot::Not(reason) => {
                    state = reason;
                    break;
                }
                Boot::Done(recorder) => match &mut all {
                    None => all = Some(recorder),
                    Some(first) => {
                        identical = identical.map(|same| same && first.text() == recorder.text());
                        first.merge(recorder);
                    }
                },
            }
        }
        let measured = state == State::Measured;
        Run {
            guest: self.subject.guest.name.clone(),
            column: self.column,
            clock: self.clock,
            command: self.command(),
            state,
            repeats: self.repeats,
            // Times differ in any two runs.
            identical: identical.filter(|_| measured && self.clock == Clock::Count),
            operations: all.filter(|_| measured).map(|all| all.results(self.clock)).unwrap_or_default(),
        }
    }

    /// Runs the guest to its end once.
    ///
    /// # Errors
    /// If an emulator cannot be started, or the user interrupts. What the guest or the hypervisor does wrong is in the result.
    pub(super) fn boot(&self, kernel: &Path) -> anyhow::Result<Boot> {
        self.boot_in(&RunFolder::new()?, kernel, None)
    }

    /// The same in this folder, where QEMU leaves what `profile` wants.
    ///
    /// # Errors
    /// As for [`Self::boot`].
    pub(super) fn boot_in(&self, folder: &RunFolder, kernel: &Path, profile: Option<&Profile>) -> anyhow::Result<Boot> {
        let bare = self.column.is_bare();
        let mut guest = self.subject.guest.clone();
        guest.words = self.column.guest_words();
        let guests = std::slice::from_ref(&guest);
        let (payload, memory) = if bare {
            (Payload::bare(&guest)?, guest.memory)
        } else {
            let words = run::kernel_command_line("info", false, &self.kernel_words());
            (Payload::gnomon(kernel.to_owned(), words, guests), run::host_memory(guests))
        };
        let mut machine = self.machine(payload.protocol, memory)?;
        machine.profile = profile.cloned();
        let (mut recorder, mut complaint) = (Recorder::default(), None);
        let mut reported = Instant::now();
        let outcome = run::execute(&machine, &payload, bare, folder, &mut |piece| {
            match piece {
                Piece::Guest(bytes) => recorder.guest(bytes),
                Piece::Line(line) if line.level == "error" => complaint = complaint.take().or(Some(line.text)),
                Piece::Line(line) => recorder.hypervisor(&line.text),
            }
            if reported.elapsed() > PATIENCE {
                reported = Instant::now();
                progress::note(&format!("   {}: {} operations so far", self.describe(), recorder.operations()));
            }
            Ok(())
        })?;
        let words = || complaint.clone().unwrap_or_else(|| format!("{:?}", outcome.ending));
        Ok(match outcome.status {
            Status::Ok if recorder.operations() == 0 => Boot::Not(State::Failed { why: NO_FIGURES.into() }),
            Status::Ok => Boot::Done(recorder),
            Status::Usage => Boot::Not(State::NotOffered { why: words() }),
            Status::Interrupted => return Err(Failed::interrupted()),
            Status::Tool => return Err(Failed::tool(format!("{}: {}", self.describe(), words()))),
            Status::Timeout => Boot::Not(State::Failed { why: format!("not done after {} s", self.timeout) }),
            Status::Guest | Status::Host | Status::Qemu(_) => Boot::Not(State::Failed { why: words() }),
        })
    }

    fn machine(&self, protocol: Protocol, memory: u64) -> anyhow::Result<Machine> {
        let arguments = MachineArgs {
            machine: self.column.machine,
            boot: None,
            host_memory: None,
            cpu: None,
            ips: (self.column.machine == MachineKind::Bochs).then_some(QUICK_IPS),
            icount: self.icount(),
            timeout: Some(self.timeout),
        };
        Machine::new(&arguments, protocol, memory)
    }

    /// Bochs counts instructions anyway.
    fn icount(&self) -> bool {
        self.column.machine == MachineKind::Qemu && self.clock == Clock::Count
    }

    /// Marks are answered by log lines, which would only disturb what is timed.
    fn kernel_words(&self) -> Vec<String> {
        let mut words = self.column.kernel_words();
        if self.clock == Clock::Count {
            words.push("marks=on".into());
        }
        words
    }

    /// The command that runs the same once more, by hand.
    fn command(&self) -> String {
        let Subject { guest, image } = &self.subject;
        let memory = guest.memory >> 20;
        let words = self.column.guest_words();
        let mut command = String::from("scripts/gnomon run");
        let arguments =
            |text: &str| if guest.arguments.is_empty() { String::new() } else { format!("{text}{}", guest.arguments) };
        let mut tail = String::new();
        if words.is_empty() {
            command.push_str(&format!(" {image} -m {memory}M"));
            tail = arguments(" -- ");
        } else {
            let name = &guest.name;
            let words = words.join(" ");
            command
                .push_str(&format!(" --guest 'name={name} mem={memory}M kernel={image} {words}{}'", arguments(" -- ")));
        }
        if self.column.machine == MachineKind::Bochs {
            command.push_str(" --machine bochs");
        } else if self.icount() {
            command.push_str(" --icount");
        }
        if self.column.is_bare() {
            command.push_str(" --bare");
        } else {
            self.kernel_words().iter().for_each(|word| command.push_str(&format!(" --set {word}")));
        }
        command + &tail
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::{Backend, Mmu, Policy};
    use super::*;

    #[test]
    fn commands_name_no_folder() {
        let guest = Guest {
            memory: 64 << 20,
            arguments: "rounds=2".into(),
            ..Guest::new("nanobench", Path::new("/somewhere/nanobench.elf"))
        };
        let subject = Subject { guest, image: "nanobench.elf".into() };
        let on = |machine, backend, policy| {
            let column = Column { machine, backend, mmu: Some(Mmu::Shadow), policy };
            Job { subject: subject.clone(), column, clock: Clock::Count, repeats: 1, timeout: 1.0 }.command()
        };
        assert_eq!(
            on(MachineKind::Qemu, Backend::Depriv, Some(Policy::WriteProtect)),
            "scripts/gnomon run --guest 'name=nanobench mem=64M kernel=nanobench.elf shadow=write-protect patches=off -- rounds=2' --icount --set marks=on"
        );
        assert_eq!(
            on(MachineKind::Qemu, Backend::Depriv, Some(Policy::Vtlb)),
            "scripts/gnomon run --guest 'name=nanobench mem=64M kernel=nanobench.elf shadow=vtlb patches=off -- rounds=2' --icount --set marks=on"
        );
        assert_eq!(
            on(MachineKind::Bochs, Backend::Bare, None),
            "scripts/gnomon run nanobench.elf -m 64M --machine bochs --bare -- rounds=2"
        );
    }
}
