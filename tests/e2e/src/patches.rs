//! Guests whose hot sites run in patches, and the same without: what they print must not depend on it, and the patches must have saved
//! exits where there was something to save.

use anyhow::{Context as _, ensure};
use gnomon_guests::{GUESTS, Guest};
use libtest_mimic::Trial;

use crate::compare;
use crate::guests::{same_with, variants};
use crate::machine::{Host, Report};
use crate::trial;

/// Guests with hot sites of their own, or that do to code, flags and stacks what a patch must bear.
const GUEST_NAMES: [&str; 11] = [
    "full-directory",
    "hot-sites",
    "hot-calls",
    "self-code",
    "sensitive",
    "timer",
    "apic",
    "memory-ops",
    "iopl",
    "task-switch",
    "stress",
];

/// Of these, the ones that run on Bochs as well, which is slow.
const ON_BOCHS: [&str; 3] = ["hot-sites", "hot-calls", "self-code"];

/// The guest that is made of hot sites.
const HOT: &str = "hot-sites";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for host in Host::BOTH {
        for guest in GUESTS.iter().filter(|guest| GUEST_NAMES.contains(&guest.name)) {
            if host == Host::Bochs && !ON_BOCHS.contains(&guest.name) {
                continue;
            }
            for (name, arguments) in variants(guest) {
                let name = format!("patches::{}::{name}", host.name());
                trials.push(trial(name, move || same_with_patches(host, guest, arguments)));
            }
        }
    }
    trials
}

fn same_with_patches(host: Host, guest: &'static Guest, arguments: &str) -> anyhow::Result<()> {
    let off = same_with(host, "patches=off", guest, arguments)?;
    let on = same_with(host, "patches=on", guest, arguments)?;
    let judge = || {
        compare::same(&off.output, &on.output).context("the line `bare` is the one without patches")?;
        ensure!(count(&off, "code sites patched") == 0, "there are patches in spite of patches=off");
        if guest.name == HOT {
            let (before, after) = (trapped(&off), trapped(&on));
            ensure!(count(&on, "code sites patched") >= 10, "fewer than ten sites have a patch");
            // Its interrupts that wait trap as ever, and twice it takes the place of patches.
            ensure!(after < before / 5 * 4, "CLI, STI, PUSHF and POPF trapped {after} times instead of {before}");
        }
        Ok(())
    };
    judge().with_context(|| on.tail())
}

/// Exits of the instructions that patches are made for.
fn trapped(report: &Report) -> u64 {
    ["cli", "sti", "sensitive"].into_iter().map(|name| count(report, name)).sum()
}

/// A counter of the end report; 0 if it is not there.
pub(crate) fn count(report: &Report, name: &str) -> u64 {
    let of_line = |line: &String| {
        let (_, text) = line.split_once("]   ")?;
        text.trim_start().strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()
    };
    report.hypervisor.iter().find_map(of_line).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gnomon_host::machine::Ending;
    use gnomon_host::status::Status;

    #[test]
    fn counters_are_read_from_the_report() {
        let lines = ["[info] guest a: 12 exits", "[info]   cli                  7", "[info]   code sites patched    3"];
        let hypervisor = lines.map(str::to_owned).to_vec();
        let report = Report { status: Status::Ok, ending: Ending::Reset, output: Vec::new(), hypervisor };
        assert_eq!((count(&report, "cli"), count(&report, "code sites patched")), (7, 3));
        assert_eq!((count(&report, "sti"), trapped(&report)), (0, 7));
    }
}
