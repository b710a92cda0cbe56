//! Tells episodes in words.

use std::fmt::Write as _;

use gnomon_trace::{Kind, Reason, Record};

use super::entry::{self, Format};
use super::episode::Episode;
use super::style::Style;
use crate::trace::fields::{disassemble, vector};
use crate::trace::{Names, fields};

/// Turns records into sentences.
pub(super) struct Teller<'a> {
    pub(super) names: &'a Names,
    pub(super) style: Style,
    /// Shadow entry (HPA) of each guest leaf entry (GPA) that this run has shown.
    pub(super) shadows: std::collections::HashMap<u64, u64>,
}

/// Pairs guest leaf entries with the shadow entries that faults built from them.
pub(super) fn pair(episodes: &[Episode]) -> std::collections::HashMap<u64, u64> {
    let leaf = |episode: &Episode| {
        let walk = episode.of_kind(Kind::Walk).filter(|walk| walk.code == 1).last()?;
        let fill = episode.of_kind(Kind::Fill).filter(|fill| fill.flags == 1).last()?;
        Some((walk.b, fill.b))
    };
    episodes.iter().filter_map(leaf).collect()
}

impl Teller<'_> {
    /// An address with its name.
    pub(super) fn address(&self, vm: u8, address: u64) -> String {
        match self.names.describe(vm, address) {
            Some(symbol) => format!("{address:#010x} ({symbol})"),
            None => format!("{address:#010x}"),
        }
    }

    /// The function that the guest was in, or the address.
    pub(super) fn place(&self, exit: &Record) -> String {
        let address = instruction(exit);
        let symbol = self.names.describe(exit.vm, address);
        symbol
            .map_or_else(|| format!("{address:#010x}"), |name| name.split("+0x").next().unwrap_or_default().to_owned())
    }

    /// One line that says what the guest did.
    pub(super) fn headline(&self, episode: &Episode) -> String {
        let Some(exit) = &episode.exit else { return "The hypervisor takes over".into() };
        let who = if exit.flags == 3 { "The process" } else { "The kernel" };
        let place = self.place(exit);
        match episode.reason() {
            Some(Reason::SoftInterrupt) => format!("{who} asks for a service: INT {:#x} in {place}", exit.code),
            Some(Reason::PtWrite) => format!("{who} writes a page-table entry in {place}"),
            Some(Reason::Iret) => format!("{who} returns by IRET in {place}"),
            Some(Reason::TrackedWrite) => format!("{who} writes beside its descriptor tables in {place}"),
            Some(Reason::HiddenFault) if misses_right(exit) => {
                format!("{who} writes to {:#010x} in {place}, for the first time", exit.b)
            }
            Some(Reason::HiddenFault) => format!("{who} touches {:#010x} in {place}, for the first time", exit.b),
            Some(Reason::TrueFault) => {
                format!("{who} touches {:#010x} in {place}, and its own tables forbid it", exit.b)
            }
            Some(reason) => format!("{who} causes the exit `{}` in {place}", reason.name()),
            None => format!("{who} leaves for the last time in {place}"),
        }
    }

    /// Why there was an exit at all.
    pub(super) fn why(episode: &Episode) -> &'static str {
        match episode.reason() {
            Some(Reason::SoftInterrupt) => {
                "the CPU's IDT is Gnomon's, so it has to do what the guest's own gate asks for"
            }
            Some(Reason::PtWrite) => "Gnomon keeps the guest's page tables read-only, to see every change",
            Some(Reason::TrackedWrite) => {
                "Gnomon keeps a checked copy of the guest's segment descriptors, and wants to know when they may have changed"
            }
            Some(Reason::Iret) => {
                "a return to another ring changes what the guest may do: Gnomon makes it fault, and does it itself"
            }
            Some(Reason::HiddenFault) if episode.exit.as_ref().is_some_and(misses_right) => {
                "the guest's tables allow it, but its dirty bit was clear: the shadow is read-only until the first write"
            }
            Some(Reason::HiddenFault) => {
                "the guest's own tables allow it, only the shadow lacks the page: the guest never learns"
            }
            Some(Reason::TrueFault) => "the guest's tables forbid the access, so the fault is the guest's to handle",
            Some(Reason::WriteCr3) => "CR3 is privileged: ring 1 may not load it",
            Some(Reason::Invlpg) => "INVLPG is privileged: ring 1 may not run it",
            _ => "",
        }
    }

    /// Ring, trap, and what the CPU reported, a line each.
    pub(super) fn trap(&self, episode: &Episode) -> Vec<String> {
        let Some(exit) = episode.exit else { return Vec::new() };
        let ring = if exit.flags == 3 { "ring 3" } else { "ring 1 (the guest believes: ring 0)" };
        let mut text = format!("{} in {ring} at {}", vector(exit.code), self.address(exit.vm, instruction(&exit)));
        match exit.code {
            14 => return vec![text, format!("{} to {}", fault_bits(exit.arg), self.address(exit.vm, exit.b))],
            // The selector or vector that the CPU refused; 0 says nothing.
            10..=13 if exit.arg != 0 => {
                let _ = write!(text, ", error code {:#x}", exit.arg);
            }
            _ => {}
        }
        vec![text]
    }

    /// What the hypervisor did, a line each.
    pub(super) fn actions(&self, episode: &Episode) -> Vec<String> {
        let mut lines: Vec<String> = episode.body.iter().filter_map(|record| self.action(record)).collect();
        // The walk of a page-table write is that of the table's own address, which is beside the point.
        if episode.reason() != Some(Reason::PtWrite) {
            lines.extend(self.tables(episode));
        }
        lines
    }

    fn action(&self, record: &Record) -> Option<String> {
        let Record { code, flags, a, b, c, vm, .. } = *record;
        let text = match record.kind {
            Kind::Emulate => format!("emulates `{}`", disassemble(a, b, flags)),
            Kind::PtWrite => return Some(self.pt_write(record)),
            Kind::Zap => format!("clears the shadow entry at HPA {b:#x} (it was {})", entry::bits(Format::Shadow, c)),
            Kind::Track => format!(
                "write-protects guest frame GPA {a:#x}: it is a page table ({b} shadow entries lose the write right)"
            ),
            Kind::Untrack => format!("lifts the write protection of guest frame GPA {a:#x}"),
            Kind::Table if flags == 1 => {
                format!("makes a shadow table of level {code} at HPA {b:#x} for the guest's at GPA {a:#x}")
            }
            Kind::Table => format!("drops the shadow table of level {code} at HPA {b:#x}"),
            Kind::Flush if code == 1 => format!("drops the translation of {a:#010x} from the TLB (INVLPG)"),
            Kind::Flush => "drops all translations from the TLB".into(),
            Kind::Inject => {
                format!(
                    "enters the guest through its own IDT: {} to {}, stack {c:#010x}",
                    vector(code),
                    self.address(vm, a)
                )
            }
            Kind::SetCr3 => format!("loads CR3 {b:#x} (before: {a:#x}): shadow root at HPA {c:#x}"),
            Kind::Ring => ring_change(code, flags),
            Kind::SetControl => {
                let register = if code == 8 { "EFER".to_owned() } else { format!("CR{code}") };
                format!("sets {register} from {a:#x} to {b:#x}")
            }
            _ => return None,
        };
        Some(text)
    }

    fn pt_write(&self, record: &Record) -> String {
        let Record { code, flags, a, b, c, .. } = *record;
        let before = if flags == 1 { format!("{} becomes ", entry::bits(Format::Guest32, b)) } else { String::new() };
        let after = entry::bits(Format::Guest32, c);
        let rights = entry::rights(Format::Guest32, code, c);
        let mut text = self.style.guest(&format!("guest  L{code} at GPA {a:#010x}: {before}{after}  {rights}"));
        if code == 1
            && let Some(hpa) = self.shadows.get(&a)
        {
            let note = format!("shadow L1 at HPA {hpa:#010x}: stays empty until somebody touches the page");
            let _ = write!(text, "\n{}", self.style.shadow(&note));
        }
        text
    }

    /// Guest entries that were walked beside shadow entries that were written.
    fn tables(&self, episode: &Episode) -> Vec<String> {
        let mut lines = Vec::new();
        for level in (1..=5).rev() {
            let walk = episode.of_kind(Kind::Walk).filter(|walk| walk.code == level).last();
            let fill = episode.of_kind(Kind::Fill).filter(|fill| fill.code == level).last();
            lines.extend(walk.map(|walk| self.style.guest(&format!("guest  {}", side(Format::Guest32, "GPA", walk)))));
            lines.extend(fill.map(|fill| self.style.shadow(&format!("shadow {}", side(Format::Shadow, "HPA", fill)))));
        }
        if episode.of_kind(Kind::Walk).any(|walk| walk.flags == 1) {
            lines.push("sets the guest's accessed and dirty bits, as the CPU would have".into());
        }
        lines
    }

    /// The records of an episode as they are, for `--records`.
    pub(super) fn raw(&self, episode: &Episode) -> Vec<String> {
        let all = episode.exit.iter().chain(&episode.body).chain(&episode.resume);
        let line = |record: &Record| {
            let words: Vec<String> =
                fields::fields(record).iter().map(|(name, value)| format!("{name}={value:x?}")).collect();
            self.style.dim(&format!("{} {} {}", record.tsc, record.kind.name(), words.join(" ")))
        };
        all.map(line).collect()
    }
}

fn side(format: Format, space: &str, record: &Record) -> String {
    let Record { code, flags, b, c, .. } = *record;
    let leaf = code == 1 || (format == Format::Shadow && flags == 1);
    let target = if leaf { "page" } else { "table" };
    let (bits, frame, rights) = (entry::bits(format, c), entry::frame(format, c), entry::rights(format, code, c));
    format!("L{code} at {space} {b:#010x}: {bits}  {target} at {space} {frame:#010x}, {rights}")
}

fn ring_change(from: u8, to: u8) -> String {
    let real = |ring: u8| if ring == 0 { 1 } else { ring };
    format!("switches the guest from ring {} to ring {}", real(from), real(to))
}

/// Where the instruction is that caused an exit. Vectors whose gates are open to the guest leave EIP behind it.
fn instruction(exit: &Record) -> u64 {
    let length = match exit.code {
        3 | 4 => 1,
        0x80 => 2,
        _ => 0,
    };
    exit.a.saturating_sub(length)
}

/// A page fault of a write through a shadow entry that is present.
fn misses_right(exit: &Record) -> bool {
    exit.code == 14 && exit.arg & 3 == 3
}

/// The error code of a page fault in words.
fn fault_bits(error: u32) -> String {
    let kind = match error & (1 << 1 | 1 << 4) {
        0 => "a read",
        2 => "a write",
        _ => "an instruction fetch",
    };
    let who = if error & 1 << 2 != 0 { "user" } else { "supervisor" };
    let why = if error & 1 != 0 { "the shadow entry is too weak" } else { "no shadow entry" };
    format!("{why} for {kind} by {who} code")
}
