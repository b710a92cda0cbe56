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

    /// Where the guest was: the function's name, or the address.
    pub(super) fn place(&self, exit: &Record) -> String {
        self.names.describe(exit.vm, exit.a).unwrap_or_else(|| format!("{:#010x}", exit.a))
    }

    /// One line that says what the guest did.
    pub(super) fn headline(&self, episode: &Episode) -> String {
        let Some(exit) = &episode.exit else { return "The hypervisor takes over".into() };
        let who = if exit.flags == 3 { "The process" } else { "The kernel" };
        let place = self.place(exit);
        match episode.reason() {
            Some(Reason::SoftInterrupt) => format!("{who} asks for a service: INT in {place}"),
            Some(Reason::PtWrite) => format!("{who} writes a page-table entry in {place}"),
            Some(Reason::Iret) => format!("{who} returns by IRET in {place}"),
            Some(Reason::HiddenFault) => format!("{who} touches {:#010x} in {place}", exit.b),
            Some(Reason::TrueFault) => {
                format!("{who} touches {:#010x} in {place}, and its own tables forbid it", exit.b)
            }
            Some(reason) => format!("{who} causes the exit `{}` in {place}", reason.name()),
            None => format!("{who} leaves for the last time in {place}"),
        }
    }

    /// Ring, trap, and what the CPU reported.
    pub(super) fn trap(&self, episode: &Episode) -> Option<String> {
        let exit = episode.exit?;
        let ring = if exit.flags == 3 { "ring 3" } else { "ring 1 (the guest believes: ring 0)" };
        let mut text = format!("{ring} at {}: {}", self.address(exit.vm, exit.a), vector(exit.code));
        match exit.code {
            14 => {
                let _ = write!(text, " on {}, {}", self.address(exit.vm, exit.b), fault_bits(exit.arg));
            }
            // The selector or vector that the CPU refused; 0 says nothing.
            10..=13 if exit.arg != 0 => {
                let _ = write!(text, ", error code {:#x}", exit.arg);
            }
            _ => {}
        }
        Some(text)
    }

    /// What the hypervisor did, a line each.
    pub(super) fn actions(&self, episode: &Episode) -> Vec<String> {
        let mut lines: Vec<String> = episode.body.iter().filter_map(|record| self.action(record)).collect();
        lines.extend(self.tables(episode));
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
        let before = if flags == 1 { entry::bits(Format::Guest32, b) } else { "?".into() };
        let after = entry::bits(Format::Guest32, c);
        let rights = entry::rights(Format::Guest32, code, c);
        let guest = format!("guest PTE, level {code}, at GPA {a:#010x}: {before} becomes {after} ({rights})");
        let mut text = self.style.guest(&guest);
        if code == 1
            && let Some(hpa) = self.shadows.get(&a)
        {
            let note = format!("shadow PTE, level 1, at HPA {hpa:#010x}: filled when the page is touched");
            let _ = write!(text, "\n{}", self.style.shadow(&note));
        }
        text
    }

    /// Guest entries that were walked beside shadow entries that were written.
    fn tables(&self, episode: &Episode) -> Vec<String> {
        let mut lines = Vec::new();
        for level in (1..=5).rev() {
            let walks = episode.of_kind(Kind::Walk).filter(|walk| walk.code == level);
            lines.extend(walks.last().map(|walk| {
                let set = if walk.flags == 1 { "; Gnomon set accessed/dirty, as the CPU would" } else { "" };
                self.style.guest(&format!("guest  {}{set}", side(Format::Guest32, "GPA", walk)))
            }));
            let fills = episode.of_kind(Kind::Fill).filter(|fill| fill.code == level);
            lines.extend(
                fills.last().map(|fill| self.style.shadow(&format!("shadow {}", side(Format::Shadow, "HPA", fill)))),
            );
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
    let Record { code, b, c, .. } = *record;
    let bits = entry::bits(format, c);
    let leaf = code == 1 || (format == Format::Shadow && record.flags == 1);
    let target = if leaf { "page" } else { "table" };
    let frame = entry::frame(format, c);
    format!(
        "L{code} at {space} {b:#010x}: {bits:<18}  {target} {space} {frame:#010x}, {}",
        entry::rights(format, code, c)
    )
}

fn ring_change(from: u8, to: u8) -> String {
    let real = |ring: u8| if ring == 0 { 1 } else { ring };
    format!("switches the guest from ring {} to ring {}", real(from), real(to))
}

/// The error code of a page fault in words.
fn fault_bits(error: u32) -> String {
    let kind = match error & (1 << 1 | 1 << 4) {
        0 => "a read",
        2 => "a write",
        _ => "a fetch",
    };
    let who = if error & 1 << 2 != 0 { "user" } else { "supervisor" };
    let why = if error & 1 != 0 { "the shadow entry lacks the right" } else { "the shadow entry is not present" };
    format!("{kind} by {who} code: {why}")
}
