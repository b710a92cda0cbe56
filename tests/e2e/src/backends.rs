//! The micro-guests under the hardware back ends, with second-level and with shadow tables: each prints what it prints bare.

use anyhow::{Context as _, bail, ensure};
use gnomon_guests::{GUESTS, Guest, Kind};
use gnomon_host::catalog;
use gnomon_host::cli::{BackendName, MmuName};
use gnomon_host::guest::Guest as Described;
use gnomon_host::image::Payload;
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::guests::{bare_agrees, last_line, variants};
use crate::hostile::{ENDLESS, comes_to_an_end, neighbour};
use crate::machine::{self, Host};
use crate::trial;

/// A back end, whose tables the CPU walks, and the machine that emulates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) backend: BackendName,
    pub(crate) mmu: MmuName,
    pub(crate) host: Host,
}

pub(crate) const WAYS: [Way; 4] = [
    Way { backend: BackendName::Svm, mmu: MmuName::Nested, host: Host::Qemu },
    Way { backend: BackendName::Svm, mmu: MmuName::Shadow, host: Host::Qemu },
    Way { backend: BackendName::Vmx, mmu: MmuName::Nested, host: Host::Bochs },
    Way { backend: BackendName::Vmx, mmu: MmuName::Shadow, host: Host::Bochs },
];

/// Bochs is slow, and what these do reaches the hypervisor in the same ways on shadow tables as on EPT.
const NESTED_ONLY_ON_BOCHS: [&str; 6] = ["privileged", "rings", "segments", "iopl", "sysenter", "hostile"];

/// Bare as well, this makes QEMU stop as if its own debugger had set the breakpoint. No guest's breakpoints act there without AMD-V.
const STOPS_QEMU: &str = "case=breakpoint-moved";

/// Who runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    /// Nobody.
    Bare,
    /// Gnomon in rings 1 and 3, with these words on how tables are shadowed.
    Gnomon(Option<&'static str>),
    /// A hardware back end.
    Hardware(Way),
}

impl Under {
    /// A ready guest, with the words that this needs.
    pub(crate) fn guest(self, name: &str) -> anyhow::Result<Described> {
        Ok(self.with_words(Described::of(name, catalog::find(name)?)))
    }

    /// The guest with the words that this needs.
    pub(crate) fn with_words(self, mut guest: Described) -> Described {
        match self {
            Self::Bare | Self::Gnomon(None) => {}
            Self::Gnomon(Some(policy)) => guest.words.push(format!("shadow={policy}")),
            Self::Hardware(way) => guest.words.push(format!("mmu={}", way.mmu.word())),
        }
        guest
    }

    /// What is booted, and the memory that it needs in bytes. Bare there is one guest.
    pub(crate) fn payload(self, guests: &[Described]) -> anyhow::Result<(Payload, u64)> {
        let words = match (self, guests) {
            (Self::Bare, [guest]) => return Ok((Payload::bare(guest)?, guest.memory)),
            (Self::Bare, _) => bail!("only one guest runs bare"),
            (Self::Gnomon(_), _) => "log=info".to_owned(),
            (Self::Hardware(way), _) => way.hypervisor(),
        };
        Ok((Payload::gnomon(machine::kernel()?, words, guests), gnomon_host::run::host_memory(guests)))
    }
}

impl Way {
    /// Words for the hypervisor.
    fn hypervisor(self) -> String {
        format!("log=info backend={}", self.backend.word())
    }

    pub(crate) fn name(self) -> String {
        format!("{}-{}::{}", self.backend.word(), self.mmu.word(), self.host.name())
    }

    fn covers(self, guest: &Guest) -> bool {
        let both = self.host != Host::Bochs || self.mmu == MmuName::Nested;
        both || !NESTED_ONLY_ON_BOCHS.contains(&guest.name)
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
        machine::gnomon(self.host, &[description], &self.hypervisor())
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
    for (backend, host) in [(BackendName::Svm, Host::Qemu), (BackendName::Vmx, Host::Bochs)] {
        let name = format!("several::{}::{}", backend.word(), host.name());
        trials.push(trial(name, move || side_by_side(backend, host)));
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

/// A guest on second-level tables beside one on shadow tables: each prints what it prints alone.
fn side_by_side(backend: BackendName, host: Host) -> anyhow::Result<()> {
    let mut guests = Vec::new();
    for (name, mmu) in [("cr3-switch", MmuName::Nested), ("demand-paging", MmuName::Shadow)] {
        let guest = GUESTS.iter().find(|guest| guest.name == name).context("a guest")?;
        let mut description = machine::describe(guest, "")?;
        description.words.push(format!("mmu={}", mmu.word()));
        guests.push((guest, description));
    }
    let (judged, descriptions): (Vec<&Guest>, Vec<Described>) = guests.into_iter().unzip();
    let report = machine::gnomon(host, &descriptions, &format!("log=info backend={}", backend.word()))?;
    let judge = || {
        ensure!(report.status == Status::Ok, "expected status 0");
        for guest in judged {
            neighbour(&report, guest)?;
        }
        last_line(&report)
    };
    judge().with_context(|| report.tail())
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
