//! What a benchmark guest runs on: a column of the tables.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cli::MachineKind;

/// Who runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Backend {
    /// Nobody: the guest alone on the emulated machine
    Bare,
    /// Gnomon in rings 1 and 3, without help of the CPU
    Depriv,
    /// Gnomon with AMD-V (QEMU emulates it)
    Svm,
    /// Gnomon with VT-x (Bochs emulates it)
    Vmx,
}

/// Whose tables the CPU walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mmu {
    /// Shadow tables
    Shadow,
    /// The guest's own and second-level ones: NPT, EPT
    Nested,
}

/// How shadow tables are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Policy {
    /// Every write to a page table traps (the reference)
    WriteProtect,
    /// Leaf tables go out of sync until INVLPG or a CR3 load
    Unsync,
    /// As unsync, and each fill looks at up to 16 entries around
    Prefetch,
    /// As prefetch, and CLI, STI, PUSHF and POPF that run often stop trapping
    Patched,
    /// Tables are a bare TLB, dropped at CR3 loads
    Vtlb,
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    /// The emulator.
    pub(super) machine: MachineKind,
    /// Who runs the guest.
    pub(super) backend: Backend,
    /// Whose tables are walked, under a hypervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mmu: Option<Mmu>,
    /// How shadow tables are kept, where that can be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Policy>,
}

/// What of the matrix is wanted; empty: all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Emulators.
    pub(super) machines: &'a [MachineKind],
    /// Back ends.
    pub(super) backends: &'a [Backend],
    /// Policies of shadow tables.
    pub(super) policies: &'a [Policy],
}

impl Column {
    /// Every column that is wanted and can be, in the order of the tables. Whether the kernel offers it shows when it runs.
    pub(super) fn matrix(wanted: Wanted<'_>) -> Vec<Self> {
        fn has<T: PartialEq>(list: &[T], item: &T) -> bool {
            list.is_empty() || list.contains(item)
        }
        let mut columns = Vec::new();
        for machine in [MachineKind::Qemu, MachineKind::Bochs] {
            if !has(wanted.machines, &machine) {
                continue;
            }
            let all = Self::of_machine(machine).into_iter();
            columns.extend(all.filter(|column| {
                has(wanted.backends, &column.backend)
                    && column.policy.is_none_or(|policy| has(wanted.policies, &policy))
            }));
        }
        columns
    }

    fn of_machine(machine: MachineKind) -> Vec<Self> {
        let column = |backend, mmu, policy| Self { machine, backend, mmu, policy };
        let hardware = match machine {
            MachineKind::Qemu => Backend::Svm,
            MachineKind::Bochs => Backend::Vmx,
        };
        let mut columns = vec![column(Backend::Bare, None, None)];
        let policies = [Policy::WriteProtect, Policy::Unsync, Policy::Prefetch, Policy::Patched, Policy::Vtlb];
        columns.extend(policies.map(|policy| column(Backend::Depriv, Some(Mmu::Shadow), Some(policy))));
        columns.push(column(hardware, Some(Mmu::Nested), None));
        columns.push(column(hardware, Some(Mmu::Shadow), None));
        columns
    }

    /// Whether there is no hypervisor.
    pub(super) fn is_bare(self) -> bool {
        self.backend == Backend::Bare
    }

    /// About how many seconds a quick run takes, so that the longest can begin first.
    pub(super) fn weight(self) -> u32 {
        match (self.machine, self.backend, self.policy, self.mmu) {
            (MachineKind::Bochs, Backend::Bare, ..) => 10,
            (MachineKind::Bochs, _, Some(Policy::Vtlb), _) => 40,
            (MachineKind::Bochs, _, Some(Policy::WriteProtect), _) => 34,
            (MachineKind::Bochs, _, None, Some(Mmu::Shadow)) => 35,
            (MachineKind::Bochs, ..) => 20,
            (MachineKind::Qemu, Backend::Svm, _, Some(Mmu::Shadow)) => 25,
            (MachineKind::Qemu, Backend::Bare, ..) => 2,
            (MachineKind::Qemu, ..) => 5,
        }
    }

    /// The emulator left out: `depriv unsync`.
    pub(super) fn label(self) -> String {
        let mut words = vec![name(self.backend)];
        match self.policy {
            Some(policy) => words.push(name(policy)),
            None => words.extend(self.mmu.map(name)),
        }
        words.join(" ")
    }

    /// In words: `depriv unsync on QEMU`.
    pub(super) fn describe(self) -> String {
        format!("{} on {}", self.label(), machine_name(self.machine))
    }

    /// Words of the hypervisor's command line. What is Gnomon's default is not said.
    pub(super) fn kernel_words(self) -> Vec<String> {
        match self.backend {
            Backend::Bare | Backend::Depriv => Vec::new(),
            Backend::Svm | Backend::Vmx => vec![format!("backend={}", name(self.backend))],
        }
    }

    /// Words of the guest's description. Patches are off but in their own column: the others show what a trap costs.
    pub(super) fn guest_words(self) -> Vec<String> {
        let without = |policy: &str| vec![format!("shadow={policy}"), "patches=off".into()];
        match (self.backend, self.policy, self.mmu) {
            (Backend::Bare, ..) | (Backend::Depriv, None, _) => Vec::new(),
            (_, Some(Policy::Prefetch), _) => without("unsync,prefetch=16"),
            (_, Some(Policy::Patched), _) => vec!["shadow=unsync,prefetch=16".into(), "patches=on".into()],
            (_, Some(policy), _) => without(&name(policy)),
            (_, None, Some(Mmu::Shadow)) => vec!["mmu=shadow".into(), "shadow=write-protect".into()],
            (_, None, mmu) => mmu.map(|mmu| format!("mmu={}", name(mmu))).into_iter().collect(),
        }
    }
}

/// The name on the command line.
pub(super) fn name<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The emulator's proper name.
pub(super) fn machine_name(machine: MachineKind) -> &'static str {
    match machine {
        MachineKind::Qemu => "QEMU",
        MachineKind::Bochs => "Bochs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(wanted: Wanted<'_>) -> Vec<String> {
        Column::matrix(wanted).into_iter().map(Column::describe).collect()
    }

    #[test]
    fn the_matrix_has_what_the_emulators_can() {
        let all = labels(Wanted { machines: &[], backends: &[], policies: &[] });
        assert_eq!(all.len(), 16);
        assert!(all.contains(&"svm nested on QEMU".to_owned()) && !all.contains(&"svm nested on Bochs".to_owned()));
    }

    #[test]
    fn a_policy_leaves_columns_without_one() {
        let wanted = Wanted { machines: &[MachineKind::Bochs], backends: &[], policies: &[Policy::Vtlb] };
        assert_eq!(
            labels(wanted),
            ["bare on Bochs", "depriv vtlb on Bochs", "vmx nested on Bochs", "vmx shadow on Bochs"]
        );
    }

    #[test]
    fn words_for_the_kernel() {
        let on = |backend, mmu, policy| Column { machine: MachineKind::Qemu, backend, mmu, policy };
        let nested = on(Backend::Svm, Some(Mmu::Nested), None);
        assert_eq!(
            (nested.kernel_words(), nested.guest_words()),
            (vec!["backend=svm".into()], vec!["mmu=nested".into()])
        );
        let unsync = on(Backend::Depriv, Some(Mmu::Shadow), Some(Policy::Unsync));
        assert_eq!(
            (unsync.kernel_words(), unsync.guest_words()),
            (vec![], vec!["shadow=unsync".into(), "patches=off".into()])
        );
        let prefetch = Column { policy: Some(Policy::Prefetch), ..unsync };
        assert_eq!(prefetch.guest_words(), ["shadow=unsync,prefetch=16", "patches=off"]);
        let patched = Column { policy: Some(Policy::Patched), ..unsync };
        assert_eq!(patched.guest_words(), ["shadow=unsync,prefetch=16", "patches=on"]);
        let reference = Column { policy: Some(Policy::WriteProtect), ..unsync };
        assert_eq!(reference.guest_words(), ["shadow=write-protect", "patches=off"], "said, whatever the default is");
    }
}
