//! The report: `bench/RESULTS.md`, every word of it, and the tables for a terminal.

use std::fmt::Write as _;

use super::catalog::{CATALOG, Family};
use super::column::{Mmu, machine_name};
use super::results::{Clock, Results, Run, State, operations};
use super::table::{Table, cell, figure};
use super::{BUILT_IN, limits, peer};
use crate::cli::MachineKind;

/// The name of the file.
pub(super) const FILE: &str = "RESULTS.md";

const INTRODUCTION: &str = "\
# What a guest kernel's operations cost

`scripts/gnomon bench --update` has written this file from `results.json` beside it; `scripts/gnomon bench render` writes it again.
Do not edit it.

Unless it says otherwise, a figure is **instructions for each operation**: what the CPU executes between two RDTSC, guest and
hypervisor together, divided by the number of operations. A column is a way to run the guest: *bare*, alone on the emulated
machine; *depriv*, under Gnomon in rings 1 and 3 with shadow tables, by policy; *svm* and *vmx*, under Gnomon with AMD-V or VT-x,
with nested or with shadow tables. `scripts/gnomon bench render` draws the same figures, too: `target/bench/report.html`.

## How it was measured
";

/// What counts do not show. Said wherever they are shown.
pub(super) const CAVEAT: &str = "\
Counts compare software, not hardware. An exit, an exception, a privilege switch, a one- or two-dimensional page walk, a TLB miss
and a TLB flush cost nothing, or one instruction, in either emulator's count. On a real CPU each costs tens to thousands of cycles.
What the count shows is how much code a hypervisor runs; what it hides is what the hardware does meanwhile.";

const METHOD: &str = "\
Both emulators count instructions and hand the count out as time stamp: QEMU with `-icount shift=0,sleep=off`, where one instruction
is one tick of the TSC; Bochs always (its clock follows the instructions, `sync=none`). So the figures have no spread, whatever else
the machine does. Each run is done twice (with `--quick`, on QEMU only), and the bytes that it prints, with the exits of each round,
are compared. `scripts/gnomon bench compare A B` compares whole calls. The guest's RDTSC does not exit. The smallest round counts.

Times are QEMU's without `-icount`, one run at a time. A round is measured beside a loop of 40,000 instructions; the figure is the
ratio to one pass of that loop (two instructions), the median of all rounds with the first and third quartile. They show what the
emulator makes of the work, not what a CPU would.

Exits are counted by Gnomon between two port writes of the guest around each round (`marks=on`), exactly.
";

/// What is special about guests that others wrote.
const OTHERS: &str = "\
The operations mean what their author says. Under AMD-V with shadow tables QEMU begins task switches without an exit, so the frame in
which the guest's TSS begins is write-protected (`kernel/vmm/src/unasked.rs`): a guest that keeps variables there, as nanobench keeps
`sink` and `saved_esp`, pays for each write to them (`touch64`, `user_roundtrip`).";

/// The report in Markdown.
pub(super) fn markdown(results: &Results) -> String {
    let mut text = format!("{INTRODUCTION}\n{CAVEAT}\n\n{METHOD}\n{}", conditions(results));
    text.push_str(&not_there(results));
    text.push_str(&limits::table(results));
    text.push_str(&limits::hardware_table(results));
    text.push_str(&limits::misses(results));
    for guest in results.guests() {
        let _ = write!(text, "\n## The guest `{guest}`\n");
        let note = if guest == BUILT_IN { peer::NOTE } else { OTHERS };
        let _ = write!(text, "\n{note}\n");
        for machine in results.machines() {
            text.push_str(&section(results, guest, machine));
        }
    }
    text.push_str(&meanings());
    text.push_str(&commands(results));
    text
}

fn conditions(results: &Results) -> String {
    let (source, tools) = (&results.source, &results.tools);
    let changed = if source.changed { ", **with changes that are not committed**" } else { "" };
    let repeated = results.runs.iter().filter(|run| run.identical == Some(true)).count();
    let different = results.runs.iter().filter(|run| run.identical == Some(false)).count();
    let mut table = Table::new(&["what", "which"]);
    for (what, which) in [
        ("Gnomon", format!("commit `{}`{changed}", source.commit)),
        ("QEMU", format!("{}, CPU model `{}`", tools.qemu, tools.qemu_cpu)),
        ("Bochs", format!("{}, CPU model `{}`", tools.bochs, tools.bochs_cpu)),
        ("compiler", tools.rustc.clone()),
        ("machine underneath", tools.host.clone()),
        ("counts that were the same twice", format!("{repeated} of {} runs", repeated + different)),
    ] {
        table.push(vec![what.into(), which]);
    }
    table.markdown()
}

/// Columns without figures, and why.
fn not_there(results: &Results) -> String {
    let mut text = String::new();
    for run in results.runs.iter().filter(|run| run.clock == Clock::Count) {
        let (word, why) = match &run.state {
            State::Measured => continue,
            State::NotOffered { why } => ("not offered", why),
            State::Failed { why } => ("**failed**", why),
        };
        let _ = writeln!(text, "* `{}`, {}: {word}: {why}", run.guest, run.column.describe());
    }
    if text.is_empty() { text } else { format!("\nColumns without figures:\n\n{text}") }
}

fn section(results: &Results, guest: &str, machine: MachineKind) -> String {
    let mut text = String::new();
    let name = machine_name(machine);
    let counts = results.select(guest, machine, Clock::Count);
    if counts.iter().any(|run| run.is_measured()) {
        let _ = write!(text, "\n### {guest} on {name}, instructions\n\n{}", costs(&counts, machine).markdown());
        let exits = exits(&counts);
        if !exits.is_empty() {
            let _ = write!(text, "\n### {guest} on {name}, exits of one operation\n\n{}", exits.markdown());
        }
    }
    let times = results.select(guest, machine, Clock::Wall);
    if times.iter().any(|run| run.is_measured()) {
        let _ =
            write!(text, "\n### {guest} on {name}, time in passes of an empty loop\n\n{}", ratios(&times).markdown());
    }
    text
}

/// Instructions by column, with the peer's.
fn costs(runs: &[&Run], machine: MachineKind) -> Table {
    let runs: Vec<&&Run> = runs.iter().filter(|run| run.is_measured()).collect();
    let labels: Vec<String> = runs.iter().map(|run| run.column.label()).collect();
    let mut header = vec!["operation"];
    header.extend(labels.iter().map(String::as_str));
    let peers = [("KVM nested", Mmu::Nested), ("KVM shadow", Mmu::Shadow)];
    header.extend(peers.iter().map(|(title, _)| *title));
    let mut table = Table::new(&header);
    let all: Vec<&Run> = runs.iter().map(|run| **run).collect();
    for name in operations(&all) {
        let mut row = vec![format!("`{name}`")];
        row.extend(runs.iter().map(|run| cell(run.cost(name))));
        row.extend(peers.iter().map(|(_, mmu)| cell(peer::instructions(machine, *mmu, name))));
        table.push(row);
    }
    table
}

/// Exits by column, with their reasons.
fn exits(runs: &[&Run]) -> Table {
    let counted = |run: &&&Run| run.operations.iter().any(|operation| operation.exits.is_some());
    let runs: Vec<&Run> = runs.iter().filter(counted).copied().collect();
    let labels: Vec<String> = runs.iter().map(|run| run.column.label()).collect();
    let mut header = vec!["operation"];
    header.extend(labels.iter().map(String::as_str));
    let mut table = Table::new(&header);
    if runs.is_empty() {
        return table;
    }
    for name in operations(&runs) {
        let cells: Vec<String> = runs.iter().map(|run| exits_of(run, name)).collect();
        if cells.iter().any(|cell| !cell.is_empty() && cell != "0") {
            let mut row = vec![format!("`{name}`")];
            row.extend(cells);
            table.push(row);
        }
    }
    table
}

/// `2 (iret 1, true-fault 1)`
pub(super) fn exits_of(run: &Run, name: &str) -> String {
    let Some(operation) = run.operation(name) else { return String::new() };
    let (Some(all), Some(exits)) = (operation.all_exits(), &operation.exits) else { return String::new() };
    let reasons: Vec<String> = exits
        .iter()
        .filter(|(_, count)| **count >= 0.01)
        .map(|(reason, count)| format!("{reason} {}", short(*count)))
        .collect();
    if reasons.is_empty() { short(all) } else { format!("{} ({})", short(all), reasons.join(", ")) }
}

/// Two decimals where they say something.
fn short(value: f64) -> String {
    if value >= 99.95 {
        figure(value)
    } else {
        format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

fn ratios(runs: &[&Run]) -> Table {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.is_measured()).copied().collect();
    let labels: Vec<String> = runs.iter().map(|run| run.column.label()).collect();
    let mut header = vec!["operation"];
    header.extend(labels.iter().map(String::as_str));
    let mut table = Table::new(&header);
    for name in operations(&runs) {
        let mut row = vec![format!("`{name}`")];
        row.extend(runs.iter().map(|run| {
            let Some(operation) = run.operation(name) else { return String::new() };
            let spread = operation.spread.map(|(low, high)| format!(" ({} to {})", figure(low), figure(high)));
            figure(operation.cost) + &spread.unwrap_or_default()
        }));
        table.push(row);
    }
    table
}

/// What the operations are.
fn meanings() -> String {
    let mut text = String::from("\n## What the operations are\n");
    for family in Family::ALL {
        let _ = write!(text, "\n### {}\n\n", family.title());
        for entry in CATALOG.iter().filter(|entry| entry.family == family) {
            let _ = writeln!(text, "* `{}`: {}", entry.name, entry.about);
        }
    }
    text + "\nThe figures have the loop around the operation in them, a few instructions, as those of nanobench do. \
            `irq_latency` and `hlt_wake` time themselves; the exits of their rounds are those of setting the timer, too.\n"
}

fn commands(results: &Results) -> String {
    let mut text = format!("\n## Again\n\n```sh\n{}\n```\n\nThe single runs:\n\n```sh\n", results.command);
    for run in results.runs.iter().filter(|run| run.is_measured()) {
        let _ = writeln!(text, "{}", run.command);
    }
    text + "```\n"
}

/// The tables for a terminal.
pub(super) fn terminal(results: &Results) -> String {
    let mut text = String::new();
    for guest in results.guests() {
        for machine in results.machines() {
            let counts = results.select(guest, machine, Clock::Count);
            if counts.iter().any(|run| run.is_measured()) {
                let title = "instructions for each operation (exits, page walks and TLB flushes cost nothing in them)";
                let table = costs(&counts, machine).plain().replace('`', "");
                let _ = write!(text, "{guest} on {}, {title}\n\n{table}\n", machine_name(machine));
            }
            let times = results.select(guest, machine, Clock::Wall);
            if times.iter().any(|run| run.is_measured()) {
                let title = "time in passes of an empty loop, median (quartiles)";
                let table = ratios(&times).plain().replace('`', "");
                let _ = write!(text, "{guest} on {}, {title}\n\n{table}\n", machine_name(machine));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::column::{Backend, Column, Policy};
    use super::super::results::{Operation, Source, Tools};
    use super::*;

    fn run(backend: Backend, policy: Option<Policy>, state: State, int80: f64) -> Run {
        let exits = (backend == Backend::Depriv)
            .then(|| BTreeMap::from([("iret".into(), 1.0), ("soft-interrupt".into(), 1.0)]));
        let operation =
            Operation { name: "int80".into(), count: 9, rounds: 2, cost: int80, spread: None, exits, mmu: None };
        Run {
            guest: BUILT_IN.into(),
            column: Column { machine: MachineKind::Qemu, backend, mmu: None, policy },
            clock: Clock::Count,
            command: "scripts/gnomon run bench".into(),
            repeats: 2,
            identical: Some(true),
            operations: if state == State::Measured { vec![operation] } else { Vec::new() },
            state,
        }
    }

    fn sample() -> Results {
        let text = String::from;
        Results {
            command: text("scripts/gnomon bench"),
            source: Source { commit: text("0123456789ab"), changed: true },
            tools: Tools {
                qemu: text("QEMU 1"),
                qemu_cpu: text("max"),
                bochs: text("Bochs 2"),
                bochs_cpu: text("tigerlake"),
                rustc: text("rustc 3"),
                host: text("a CPU, 2 cores"),
            },
            runs: vec![
                run(Backend::Bare, None, State::Measured, 3.0),
                run(Backend::Depriv, Some(Policy::WriteProtect), State::Measured, 3400.0),
                run(Backend::Depriv, Some(Policy::Vtlb), State::Measured, 690.0),
                run(Backend::Svm, None, State::NotOffered { why: text("unknown word") }, 0.0),
            ],
        }
    }

    #[test]
    fn the_report_says_what_was_found() {
        let text = markdown(&sample());
        for line in [
            "| operation | what | limit | bench on QEMU |",
            "| `int80` | system call round trip | 700 | 690, met (vtlb) |",
            "| `invlpg` | INVLPG | 430 | not measured |",
            "| operation | bare | depriv write-protect | depriv vtlb | KVM nested | KVM shadow |",
            "| `int80` | 3 | 3,400 | 690 | 4 | 4 |",
            "| `int80` | 2 (iret 1, soft-interrupt 1) | 2 (iret 1, soft-interrupt 1) |",
            "* `bench`, svm on QEMU: not offered: unknown word",
            "| Gnomon | commit `0123456789ab`, **with changes that are not committed** |",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn results_survive_the_file() {
        let results = sample();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(super::super::results::FILE), results.json().unwrap()).unwrap();
        assert_eq!(Results::load(folder.path()).unwrap(), results);
    }

    /// Nobody has edited the committed report by hand.
    #[test]
    fn the_committed_report_comes_from_the_committed_results() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench");
        let committed = std::fs::read_to_string(folder.join(FILE)).unwrap();
        let results = Results::load(&folder).unwrap();
        let made = super::super::whole_report(&results, &folder);
        let differing = committed.lines().zip(made.lines()).find(|(committed, made)| committed != made);
        assert_eq!(differing, None, "run gnomon bench render");
        assert_eq!(committed.len(), made.len(), "run gnomon bench render");
    }
}
