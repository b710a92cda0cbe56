//! The projection to real CPUs: counts, plus what hardware does in exits and page walks, by figures that the user can edit
//! (`bench/model.json`, or the fields of the report's page, whose script has the same formula).

use serde::{Deserialize, Serialize};

use super::column::{Backend, Column, Mmu};
use super::results::Operation;

/// TLB misses of one of the guest's `mix` operations: its CR3 load and the reads after it.
pub(super) const MISSES: f64 = 64.0;

/// The file that comes with Gnomon.
const DEFAULT: &str = include_str!("../../../../bench/model.json");

/// A figure and where it is from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Parameter {
    /// The figure.
    pub(super) value: f64,
    /// Who says so.
    pub(super) source: String,
}

/// All figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    /// What this is.
    pub(super) about: String,
    /// Of the hypervisor's and the guest's instructions.
    pub(super) cycles_per_instruction: Parameter,
    /// An exit of VT-x or AMD-V and the entry after it.
    pub(super) exit_cycles_hardware: Parameter,
    /// An exception into ring 0 and the return.
    pub(super) exit_cycles_depriv: Parameter,
    /// Memory references of a page walk.
    pub(super) references_per_walk: Parameter,
    /// The same through two sets of tables.
    pub(super) references_per_nested_walk: Parameter,
    /// One of them.
    pub(super) cycles_per_reference: Parameter,
}

impl Model {
    /// The model in the repository, as it was when the tool was built.
    ///
    /// # Errors
    /// If the file is not a model.
    pub(super) fn load() -> anyhow::Result<Self> {
        let path = super::own_folder().join("model.json");
        let text = std::fs::read_to_string(path).unwrap_or_else(|_| DEFAULT.to_owned());
        serde_json::from_str(&text).map_err(|error| anyhow::anyhow!("bench/model.json: {error}"))
    }

    /// Names, values and sources, in the order of the page.
    pub(super) fn parameters(&self) -> [(&'static str, &'static str, &Parameter); 6] {
        [
            ("cycles_per_instruction", "Cycles per instruction", &self.cycles_per_instruction),
            ("exit_cycles_hardware", "Cycles per exit, VT-x or AMD-V", &self.exit_cycles_hardware),
            ("exit_cycles_depriv", "Cycles per exit, depriv", &self.exit_cycles_depriv),
            ("references_per_walk", "Memory references per page walk", &self.references_per_walk),
            ("references_per_nested_walk", "Memory references per nested page walk", &self.references_per_nested_walk),
            ("cycles_per_reference", "Cycles per reference", &self.cycles_per_reference),
        ]
    }

    /// Cycles for each TLB miss of a `mix` operation in this column.
    pub(super) fn cycles_per_miss(&self, column: Column, operation: &Operation) -> f64 {
        let per_exit = match column.backend {
            Backend::Bare => 0.0,
            Backend::Depriv => self.exit_cycles_depriv.value,
            Backend::Svm | Backend::Vmx => self.exit_cycles_hardware.value,
        };
        let references = match column.mmu {
            Some(Mmu::Nested) => self.references_per_nested_walk.value,
            _ => self.references_per_walk.value,
        };
        let software = operation.cost * self.cycles_per_instruction.value;
        let exits = operation.all_exits().unwrap_or(0.0) * per_exit;
        (software + exits) / MISSES + references * self.cycles_per_reference.value
    }
}

/// Where the line `a` comes to lie above `b`, by straight lines between the points of both; nothing if it does not.
pub(super) fn crossing(a: &[(f64, f64)], b: &[(f64, f64)]) -> Option<f64> {
    let points: Vec<(f64, f64)> = a.iter().zip(b).map(|(a, b)| (a.0, a.1 - b.1)).collect();
    points.windows(2).find_map(|pair| {
        let &[(x0, d0), (x1, d1)] = pair else { return None };
        (d0 <= 0.0 && d1 > 0.0).then(|| x0 + (x1 - x0) * (-d0 / (d1 - d0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::MachineKind;
    use std::collections::BTreeMap;

    #[test]
    fn lines_cross_between_points() {
        let (flat, rising) = ([(0.0, 10.0), (1.0, 10.0)], [(0.0, 0.0), (1.0, 20.0)]);
        assert_eq!(crossing(&rising, &flat), Some(0.5));
        assert_eq!(crossing(&flat, &rising), None, "it begins above");
    }

    #[test]
    fn the_committed_model_counts_exits_and_references() {
        let model: Model = serde_json::from_str(DEFAULT).unwrap();
        let column = |backend, mmu| Column { machine: MachineKind::Qemu, backend, mmu, policy: None };
        let exits = Some(BTreeMap::from([("write-cr3".to_owned(), 1.0)]));
        let operation =
            Operation { name: "mix_0".into(), count: 1, rounds: 1, cost: 640.0, spread: None, exits, mmu: None };
        let walk = 1.5 * 30.0;
        assert_eq!(model.cycles_per_miss(column(Backend::Bare, None), &operation), 10.0 + walk);
        let depriv = model.cycles_per_miss(column(Backend::Depriv, Some(Mmu::Shadow)), &operation);
        assert_eq!(depriv, 10.0 + 400.0 / MISSES + walk);
        let nested = model.cycles_per_miss(column(Backend::Svm, Some(Mmu::Nested)), &operation);
        assert_eq!(nested, 10.0 + 2000.0 / MISSES + 4.4 * 30.0);
    }
}
