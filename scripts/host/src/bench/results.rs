//! What a run of the benchmarks found, as it is kept in `bench/results.json`. Every report is made from this alone.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::column::Column;
use crate::cli::MachineKind;
use crate::status::Failed;

/// The name of the file.
pub(super) const FILE: &str = "results.json";

/// Everything that one call of `gnomon bench` measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    /// The call, as it can be repeated.
    pub(super) command: String,
    /// What was measured.
    pub(super) source: Source,
    /// What it was measured with.
    pub(super) tools: Tools,
    /// The runs, by guest, then clock, then column.
    pub(super) runs: Vec<Run>,
}

/// A state of the sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    /// The git commit.
    pub(super) commit: String,
    /// Whether files that are built differed from it.
    pub(super) changed: bool,
}

/// Versions, in the tools' own words, and the machine underneath.
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
    /// The machine underneath: CPU and number of cores. Counts do not depend on it, times do.
    pub(super) host: String,
}

/// What ticks mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Clock {
    /// Instructions for each operation, exact
    Count,
    /// Time (QEMU only), as a multiple of what a pass of an empty loop takes in the same run
    Wall,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub(super) enum State {
    /// There are figures.
    Measured,
    /// This kernel or this machine has no such column; in the kernel's words.
    NotOffered {
        /// Why.
        why: String,
    },
    /// It should have worked.
    Failed {
        /// Why it did not.
        why: String,
    },
}

/// One guest in one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The guest.
    pub(super) guest: String,
    /// What it ran on.
    #[serde(flatten)]
    pub(super) column: Column,
    /// What was read.
    pub(super) clock: Clock,
    /// The command that runs the same again.
    pub(super) command: String,
    /// How it went.
    #[serde(flatten)]
    pub(super) state: State,
    /// How often it was run.
    pub(super) repeats: u32,
    /// Whether all repeats printed the same bytes, marks included; nothing if there was one.
    pub(super) identical: Option<bool>,
    /// What it found.
    pub(super) operations: Vec<Operation>,
}

/// One operation of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Operation {
    /// Its name, as the guest prints it.
    pub(super) name: String,
    /// How often it was done in a round.
    pub(super) count: u32,
    /// How many rounds there were, in all repeats.
    pub(super) rounds: u32,
    /// The cost of one: of the best round if instructions are counted, the median if not.
    pub(super) cost: f64,
    /// First and third quartile, for times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spread: Option<(f64, f64)>,
    /// Exits of one, by reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exits: Option<BTreeMap<String, f64>>,
    /// What the shadow MMU counted for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mmu: Option<BTreeMap<String, f64>>,
}

impl Operation {
    /// All exits of one.
    pub(super) fn all_exits(&self) -> Option<f64> {
        self.exits.as_ref().map(|exits| exits.values().sum())
    }
}

impl Results {
    /// Reads the file in this folder, or this file.
    ///
    /// # Errors
    /// If it is missing or not what this tool writes.
    pub(super) fn load(path: &Path) -> anyhow::Result<Self> {
        let path = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| Failed::usage(format!("{}: {error}", path.display())))?;
        serde_json::from_str(&text).with_context(|| format!("{}: not results of gnomon bench", path.display()))
    }

    /// The file's text.
    ///
    /// # Errors
    /// None that can happen with these types.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The guests, each once.
    pub(super) fn guests(&self) -> Vec<&str> {
        distinct(self.runs.iter().map(|run| run.guest.as_str()))
    }

    /// The emulators, each once.
    pub(super) fn machines(&self) -> Vec<MachineKind> {
        distinct(self.runs.iter().map(|run| run.column.machine))
    }

    /// The runs of a guest on an emulator by a clock.
    pub(super) fn select(&self, guest: &str, machine: MachineKind, clock: Clock) -> Vec<&Run> {
        let wanted = |run: &&Run| run.guest == guest && run.column.machine == machine && run.clock == clock;
        self.runs.iter().filter(wanted).collect()
    }
}

impl Run {
    /// The operation of this name.
    pub(super) fn operation(&self, name: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.name == name)
    }

    /// What one costs.
    pub(super) fn cost(&self, name: &str) -> Option<f64> {
        self.operation(name).map(|operation| operation.cost)
    }

    /// Whether there are figures.
    pub(super) fn is_measured(&self) -> bool {
        self.state == State::Measured
    }
}

/// The operations of these runs, in the guest's order. One run may lack what another has: a guest looks at what its CPU offers.
pub(super) fn operations<'a>(runs: &[&'a Run]) -> Vec<&'a str> {
    distinct(runs.iter().flat_map(|run| run.operations.iter().map(|operation| operation.name.as_str())))
}

fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut list = Vec::new();
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    list
}
