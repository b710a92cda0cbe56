//! What a run of the benchmarks found, as it is kept in `bench/results.json`. The report is made from this alone.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::cli::MachineKind;
use crate::status::Failed;

/// The name of the file.
const FILE: &str = "results.json";

/// Everything that one call of `gnomon bench` measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    /// The call, as it can be repeated.
    pub(super) command: String,
    /// What was measured.
    pub(super) source: Source,
    /// What it was measured with.
    pub(super) tools: Tools,
    /// The benchmark guests, in the order in which they ran.
    pub(super) guests: Vec<GuestResults>,
}

/// A state of the sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    /// The git commit.
    pub(super) commit: String,
    /// Whether files that are built differed from it.
    pub(super) changed: bool,
}

/// Versions, in the tools' own words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tools {
    /// QEMU.
    pub(super) qemu: String,
    /// The CPU model that it emulated.
    pub(super) qemu_cpu: String,
    /// Bochs.
    pub(super) bochs: String,
    /// The CPU model that it emulated.
    pub(super) bochs_cpu: String,
    /// The compiler.
    pub(super) rustc: String,
}

/// One benchmark guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct GuestResults {
    /// The name of its image.
    pub(super) name: String,
    /// Its memory in MiB.
    pub(super) memory_mib: u64,
    /// Its runs.
    pub(super) runs: Vec<Run>,
}

/// What the guest ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Under {
    /// The emulated machine itself.
    Bare,
    /// Gnomon.
    Gnomon,
}

/// One run of a guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The emulator.
    pub(super) machine: MachineKind,
    /// With or without the hypervisor.
    pub(super) under: Under,
    /// The command that runs the same again.
    pub(super) command: String,
    /// What it counted.
    pub(super) counts: Vec<Count>,
}

/// One operation of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Count {
    /// Its name, as the guest prints it.
    pub(super) operation: String,
    /// Instructions for each operation, in the best round.
    pub(super) instructions: f64,
    /// How many rounds there were.
    pub(super) rounds: u32,
}

impl Results {
    /// Reads the file in this folder.
    ///
    /// # Errors
    /// If it is missing or not what this tool writes.
    pub(super) fn load(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| Failed::usage(format!("{}: {error}", path.display())))?;
        serde_json::from_str(&text).with_context(|| format!("{}: not results of gnomon bench", path.display()))
    }

    /// Writes the file into this folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(FILE);
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The guest of this name.
    pub(super) fn guest(&self, name: &str) -> Option<&GuestResults> {
        self.guests.iter().find(|guest| guest.name == name)
    }
}

impl GuestResults {
    /// The emulators that it ran on, each once.
    pub(super) fn machines(&self) -> Vec<MachineKind> {
        let mut machines: Vec<_> = self.runs.iter().map(|run| run.machine).collect();
        machines.dedup();
        machines
    }

    /// The operations of this emulator's runs, in the guest's order. Gnomon's run may lack one that the bare run has, and the
    /// other way round: a guest may look at what the CPU offers.
    pub(super) fn operations(&self, machine: MachineKind) -> Vec<&str> {
        let mut operations: Vec<&str> = Vec::new();
        for count in self.runs.iter().filter(|run| run.machine == machine).flat_map(|run| &run.counts) {
            if !operations.contains(&count.operation.as_str()) {
                operations.push(&count.operation);
            }
        }
        operations
    }

    /// Instructions for each `operation`.
    pub(super) fn instructions(&self, machine: MachineKind, under: Under, operation: &str) -> Option<f64> {
        let run = self.runs.iter().find(|run| run.machine == machine && run.under == under)?;
        run.counts.iter().find(|count| count.operation == operation).map(|count| count.instructions)
    }

    /// Instructions that Gnomon adds to each `operation`.
    pub(super) fn added(&self, machine: MachineKind, operation: &str) -> Option<f64> {
        let of = |under| self.instructions(machine, under, operation);
        Some(of(Under::Gnomon)? - of(Under::Bare)?)
    }
}
