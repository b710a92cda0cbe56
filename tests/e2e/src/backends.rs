//! The micro-guests under the hardware back ends, with second-level and with shadow tables: each prints what it prints bare.

use anyhow::{Context as _, ensure};
use gnomon_guests::{GUESTS, Guest, Kind};
use gnomon_host::cli::{BackendName, MmuName};
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::guests::{bare_agrees, last_line, variants};
use crate::hostile::{ENDLESS, comes_to_an_end};
use crate::machine::{self, Host};
use crate::trial;

/// A back end, whose tables the CPU walks, and the machine that emulates it.
#[derive(Clone, Copy, Debug)]
struct Way {
    backend: BackendName,
    mmu: MmuName,
    host: Host,
}

const WAYS: [Way; 4] = [
    Way { backend: BackendName::Svm, mmu: MmuName::Nested, host: Host::Qemu },
    Way { backend: BackendName::Svm, mmu: MmuName::Shadow, host: Host::Qemu },
    Way { backend: BackendName::Vmx, mmu: MmuName::Nested, host: Host::Bochs },
    Way { backend: BackendName::Vmx, mmu: MmuName::Shadow, host: Host::Bochs },
];

/// Bochs is slow, and what these do reaches the hypervisor in the same ways on shadow tables as on EPT.
const NESTED_ONLY_ON_BOCHS: [&str; 6] = ["privileged", "rings", "segments", "iopl", "sysenter", "hostile"];

/// VT-x leaves task switches to the hypervisor, which does them for deprivileged guests only. So would AMD-V with shadow tables, but
/// QEMU does not intercept them, and the CPU loads CR3 from the guest's TSS.
const SWITCH_TASKS: [&str; 2] = ["task-switch", "delivery"];

/// The hardware back ends stop a guest that is found in virtual-8086 mode.
const ENTERS_V86: &str = "v86";

/// Bare as well, this makes QEMU stop as if its own debugger had set the breakpoint. No guest's breakpoints act there without AMD-V.
const STOPS_QEMU: &str = "case=breakpoint-moved";

impl Way {
    fn name(self) -> String {
        format!("{}-{}::{}", self.backend.word(), self.mmu.word(), self.host.name())
    }

    fn covers(self, guest: &Guest) -> bool {
        let both = self.host != Host::Bochs || self.mmu == MmuName::Nested;
        let switches = self.backend == BackendName::Svm && self.mmu == MmuName::Nested;
        let runs = (switches || !SWITCH_TASKS.contains(&guest.name)) && guest.name != ENTERS_V86;
        runs && (both || !NESTED_ONLY_ON_BOCHS.contains(&guest.name))
    }

    /// Does this case never end by itself? `hostile` judges the spinning one by its neighbour. Where the CPU delivers page faults, a
    /// guest that faults for ever is one that spins; so is one that has destroyed its IDT, where the CPU delivers all exceptions.
    fn endless(self, arguments: &str) -> bool {
        let faults = self.mmu == MmuName::Nested && arguments == "case=fault-loop-forever";
        let on_qemu = self.host == Host::Qemu && matches!(arguments, "seed=4" | STOPS_QEMU);
        arguments == ENDLESS || faults || on_qemu
    }

    fn run(self, guest: &'static Guest, arguments: &str) -> anyhow::Result<machine::Report> {
        let mut description = machine::describe(guest, arguments)?;
        description.words.push(format!("mmu={}", self.mmu.word()));
        machine::gnomon(self.host, &[description], &format!("log=info backend={}", self.backend.word()))
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for way in WAYS {
        for guest in GUESTS.iter().filter(|guest| way.covers(guest)) {
            for (name, arguments) in variants(guest) {
                let test: fn(Way, &'static Guest, &str) -> anyhow::Result<()> = match guest.kind {
                    Kind::Tap | Kind::TapOffQemu | Kind::Resets => same,
                    Kind::Hostile if !way.endless(arguments) => survives,
                    _ => continue,
                };
                trials.push(trial(format!("{}::{name}", way.name()), move || test(way, guest, arguments)));
            }
        }
    }
    trials.push(trial("backends::refused", refused));
    trials
}

fn same(way: Way, guest: &'static Guest, arguments: &str) -> anyhow::Result<()> {
    let report = way.run(guest, arguments)?;
    bare_agrees(way.host, guest, arguments, &report)
}

fn survives(way: Way, guest: &'static Guest, arguments: &str) -> anyhow::Result<()> {
    comes_to_an_end(&way.run(guest, arguments)?, guest)
}

/// A machine without the extension says so in one line, and a guest's words that the back end cannot honour are refused.
fn refused() -> anyhow::Result<()> {
    let guest = GUESTS.iter().find(|guest| guest.kind == Kind::Tap).context("a guest")?;
    for (words, mmu, expected) in [
        ("backend=vmx", "nested", "no VT-x"),
        ("backend=depriv", "nested", "mmu=nested needs backend=vmx or backend=svm"),
    ] {
        let mut description = machine::describe(guest, "")?;
        description.words.push(format!("mmu={mmu}"));
        let report = machine::gnomon(Host::Qemu, &[description], words)?;
        let judge = || {
            ensure!(report.status == Status::Usage, "expected a refusal");
            ensure!(report.output.is_empty(), "the guest ran");
            let lines = report.hypervisor.iter().filter(|line| line.starts_with("[error]"));
            let lines: Vec<&String> = lines.collect();
            ensure!(lines.len() == 1 && lines[0].contains(expected), "expected one line with `{expected}`");
            last_line(&report)
        };
        judge().with_context(|| report.tail())?;
    }
    Ok(())
}
