//! The report: `bench/RESULTS.md`, every word of it.

use std::fmt::Write as _;

use super::measure::machine_name;
use super::results::{GuestResults, Results};
use super::table::{self, Table, figure};
use super::{BUILT_IN, peer};
use crate::cli::MachineKind;

/// The name of the file.
pub(super) const FILE: &str = "RESULTS.md";

const INTRODUCTION: &str = "\
# What a guest kernel's operations cost

`scripts/gnomon bench --update` has written this file from `results.json` beside it. Do not edit it: run the command again.

All figures are **instructions for each operation**: what the CPU executes between two RDTSC, divided by the number of operations.
*bare* is the guest alone on the emulated machine, *Gnomon* the same image under Gnomon, *added* the difference: what the exits
of that operation cost, with everything that Gnomon does in them.

## How it was measured
";

const METHOD: &str = "\
Both emulators count instructions and hand the count out as time stamp: QEMU with `-icount shift=0,sleep=off`, where one instruction
is one tick of the TSC; Bochs always (its clock follows the instructions, `sync=none`). So the figures are the same in every run,
whatever else the machine does. The guest's RDTSC does not exit. Of a guest that repeats its rounds, the smallest round counts.

Counts compare software, not hardware. An exception, a privilege switch, a page walk, a TLB miss, a TLB flush, and for the peer a
VM exit, cost nothing or one instruction in them. On a real CPU each costs tens to thousands of cycles. What the count shows is
how much code Gnomon runs; what it hides is what the hardware does meanwhile.
";

const TARGETS: &str = "\
The floor is 36 instructions: a bare #GP round trip into ring 0 and back, with 15 registers saved and restored and nothing done
in between. What the targets allow on top of it is for finding out what the guest did, and doing it.
";

const OWN_GUEST: &str = "\
The guest comes with Gnomon (`tests/guests/asm/bench-exits.s`). It does each operation 10,000 times in a loop, whose own two
instructions are in the figures. A line that names two operations has two exits, if both exit.
";

/// An operation of the built-in guest, and what the first slice of Gnomon may add to it.
const LIMITS: [(&str, &str, f64); 2] = [
    ("#GP: a trivial privileged instruction", "CLI", 500.0),
    ("#PF: a page-table write", "PTE write, other frame", 2000.0),
];

/// The report in Markdown.
pub(super) fn markdown(results: &Results) -> String {
    let mut text = String::from(INTRODUCTION);
    text.push('\n');
    text.push_str(METHOD);
    text.push('\n');
    text.push_str(&conditions(results));
    if let Some(guest) = results.guest(BUILT_IN) {
        let _ = write!(text, "\n## Floor and targets\n\n{TARGETS}\n{}", targets(guest).markdown());
    }
    for guest in &results.guests {
        text.push_str(&section(guest));
    }
    text.push_str(&commands(results));
    text
}

fn conditions(results: &Results) -> String {
    let source = &results.source;
    let changed = if source.changed { ", **with changes that are not committed**" } else { "" };
    let mut table = Table::new(&["what", "which"]);
    let tools = &results.tools;
    for (what, which) in [
        ("Gnomon", format!("commit `{}`{changed}", source.commit)),
        ("QEMU", format!("{}, CPU model `{}`", tools.qemu, tools.qemu_cpu)),
        ("Bochs", format!("{}, CPU model `{}`", tools.bochs, tools.bochs_cpu)),
        ("compiler", tools.rustc.clone()),
    ] {
        table.push(vec![what.into(), which]);
    }
    table.markdown()
}

fn targets(guest: &GuestResults) -> Table {
    let machines = guest.machines();
    let names: Vec<String> = machines.iter().map(|machine| format!("added on {}", machine_name(*machine))).collect();
    let mut header = vec!["exit", "operation", "target: under"];
    header.extend(names.iter().map(String::as_str));
    let mut table = Table::new(&header);
    for (exit, operation, limit) in LIMITS {
        let mut row = vec![exit.to_owned(), operation.to_owned(), figure(limit)];
        row.extend(machines.iter().map(|machine| verdict(guest, *machine, operation, limit)));
        table.push(row);
    }
    table
}

fn verdict(guest: &GuestResults, machine: MachineKind, operation: &str, limit: f64) -> String {
    let Some(added) = guest.added(machine, operation) else { return "not measured".into() };
    let word = if added < limit { "met" } else { "**missed**" };
    format!("{}, {word}", figure(added))
}

fn section(guest: &GuestResults) -> String {
    let mut text = format!("\n## The guest `{}`\n", guest.name);
    let about = match guest.name.as_str() {
        BUILT_IN => OWN_GUEST,
        peer::GUEST => peer::NOTE,
        _ => "",
    };
    if !about.is_empty() {
        let _ = write!(text, "\n{}\n", about.trim_end());
    }
    for machine in guest.machines() {
        let table = table::of_guest(guest, machine).markdown();
        let _ = write!(text, "\n### {} on {}\n\n{table}", guest.name, machine_name(machine));
    }
    text
}

fn commands(results: &Results) -> String {
    let mut text = format!("\n## Again\n\n```sh\n{}\n```\n\nThe single runs:\n\n```sh\n", results.command);
    for run in results.guests.iter().flat_map(|guest| &guest.runs) {
        let _ = writeln!(text, "{}", run.command);
    }
    text + "```\n"
}

#[cfg(test)]
mod tests {
    use super::super::results::{Count, Run, Source, Tools, Under};
    use super::*;
    use std::path::Path;

    fn run(under: Under, cli: f64, pte: f64) -> Run {
        let count = |operation: &str, instructions| Count { operation: operation.into(), instructions, rounds: 1 };
        let counts = vec![count("CLI", cli), count("PTE write, other frame", pte)];
        Run { machine: MachineKind::Qemu, under, command: "scripts/gnomon run x".into(), counts }
    }

    fn sample(name: &str) -> Results {
        let runs = vec![run(Under::Bare, 3.0, 4.0), run(Under::Gnomon, 303.0, 2004.0)];
        Results {
            command: "scripts/gnomon bench".into(),
            source: Source { commit: "0123456789ab".into(), changed: false },
            tools: Tools {
                qemu: "QEMU 1".into(),
                qemu_cpu: "max".into(),
                bochs: "Bochs 2".into(),
                bochs_cpu: "tigerlake".into(),
                rustc: "rustc 3".into(),
            },
            guests: vec![GuestResults { name: name.into(), memory_mib: 32, runs }],
        }
    }

    #[test]
    fn targets_are_judged() {
        let text = markdown(&sample(BUILT_IN));
        for line in [
            "| exit | operation | target: under | added on QEMU |",
            "| #GP: a trivial privileged instruction | CLI | 500 | 300, met |",
            "| #PF: a page-table write | PTE write, other frame | 2,000 | 2,000, **missed** |",
            "### bench-exits on QEMU",
            "| CLI | 3 | 303 | 300 |",
            "| Gnomon | commit `0123456789ab` |",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn uncommitted_changes_are_said() {
        let mut results = sample(BUILT_IN);
        results.source.changed = true;
        assert!(markdown(&results).contains("`0123456789ab`, **with changes"));
    }

    #[test]
    fn the_peer_stands_beside_nanobench_only() {
        let mut results = sample(peer::GUEST);
        results.guests[0].runs[1].counts[0].operation = "invlpg".into();
        let text = markdown(&results);
        assert!(text.contains("| operation | bare | Gnomon | added | KVM |"), "{text}");
        assert!(text.contains("| invlpg |  | 303 |  | 3,700 |"), "{text}");
        assert!(!markdown(&sample(BUILT_IN)).contains("KVM |"));
    }

    #[test]
    fn results_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let results = sample(BUILT_IN);
        results.save(folder.path()).unwrap();
        assert_eq!(Results::load(folder.path()).unwrap(), results);
    }

    /// Nobody has edited the committed report by hand.
    #[test]
    fn the_committed_report_comes_from_the_committed_results() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench");
        let committed = std::fs::read_to_string(folder.join(FILE)).unwrap();
        assert_eq!(committed, markdown(&Results::load(&folder).unwrap()), "run gnomon bench --render");
    }
}
