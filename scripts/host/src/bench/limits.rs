//! The limits of costs, what misses one, and where its instructions go.

use super::catalog::{self, LIMITS};
use super::column::{Backend, Mmu, machine_name};
use super::results::{Clock, Operation, Results, Run};
use super::table::{Table, figure};
use super::{BUILT_IN, peer, report};
use crate::cli::MachineKind;

/// The cheapest exit, as guests call it.
const TRIVIAL: [&str; 2] = ["cli", "cpuid"];

const MISSES: &str = "\
With the best policy. A trivial exit is `cli`: out of the guest and back, finding out why, comparing the bytes at EIP with what
was decoded before, and next to nothing done. Where that column alone is above the limit, only fewer exits help: a fault handler
that reads CR2 and returns by IRET has three, since both instructions are privileged, and hardware virtualization has one or none.
The rest is work.

Where it goes says `scripts/gnomon bench profile pf_skip`, which has QEMU count each instruction; with the build of 29 November 2026,
the parts by the instructions' addresses:

* `pf_skip`, 885: the guest 14; assembly from the gate to the run loop and back, for three exits, 104; the run loop 315, which asks
  what waits and why the guest came out, 57 an exit, and knows the instruction of two of them, 72 each; the fault 225: 64 to walk the
  guest's two levels, 37 to see that the guest's tables forbid it, the rest to sort it out, count it and note that the guest makes
  progress; its delivery 140 (gate 37, frame 19, flags and selectors); IRET 81, to read the frame and judge what it loads.

The same three exits are what is left of it in `nanobench`, which keeps its variables in the page of its GDT. Until that day no event
took the short way while such a page was open for the guest's writes, and nothing closed it: 3,614. An event or a return closes it now
(`kernel/vmm/src/segments`). Reads of CR2 and returns within the kernel could be done in patches, as CLI and STI are. Then two of the exits would go, and some 590
instructions remain: 115 of the exit, 225 of the fault, 140 of its delivery, 95 to lend and reclaim flags and to leave CR2 where a
patch can read it, the guest's own. That misses, too, and of what Debian's kernels execute it is a thousandth, so it was left.

What was done about others that missed:

* `pgfault_user` took 2,012 (28 November), of which 1,016 were `fill_ahead`, which completes the shadow at the return from the handler. The
  path from the root to the page of the last fault is kept (`shadow-mmu/src/path.rs`): 95 less. A store looks at its table once, in the
  last gate: 14. What a walk notes of the entries that it reads, and how an entry becomes a shadow entry, are in line where they are
  used: 40 and 25.
* `map4m_touch_cr3` took 731 in `nanobench`, where, unlike in `bench`, each round begins with an empty table. An entry is cleared
  with one look at its table: 22 less. The last gate looks at the frame that an entry names once: 21. Which entries a prefetch made is noted
  once for all: 29. An event that nobody wants is not put together: 6.
";

/// What exits with nested paging, under KVM as under Gnomon.
const HARDWARE_EXITS: [&str; 2] = ["cpuid", "inb"];

const HARDWARE: &str = "\
With nested paging (AMD-V with NPT on QEMU, VT-x with EPT on Bochs), at most a third of what KVM's nested paging takes. Its port
accesses go on to a user process. CPUID with EPT takes 341 since it has a short way, and 447 before
(`scripts/gnomon bench --machine bochs --backend vmx --clock count --only cpuid`). What went: the way through all intercepted
instructions, with its stack frame; registers that were saved for worlds that are loaded or run without an extension; and a VMREAD
for an event cut short, which no instruction that was begun can have. What is left, about: 30 of assembly, 140 to choose the VMCS,
compare EIP, ESP and EFLAGS, read them, CS, SS and the reason, 65 for CPUID itself, executed twice, the rest the run loop.
";

/// The limits, with the best policy of `depriv` for each.
pub(super) fn table(results: &Results) -> String {
    let places = places(results);
    let names: Vec<String> = places.iter().map(Place::title).collect();
    let mut header = vec!["operation", "what", "limit"];
    header.extend(names.iter().map(String::as_str));
    let mut table = Table::new(&header);
    for limit in &LIMITS {
        let names: Vec<String> = limit.names.iter().map(|name| format!("`{name}`")).collect();
        let mut row = vec![names.join(" or "), limit.what.to_owned(), figure(limit.instructions)];
        row.extend(places.iter().map(|place| place.verdict(limit)));
        table.push(row);
    }
    format!(
        "\n## Limits\n\nInstructions at most, under `depriv` with the best policy for the row, which is named. Most are a third of what \
         KVM's shadow paging takes.\n\n{}",
        table.markdown()
    )
}

/// A guest on an emulator.
struct Place<'a> {
    guest: &'a str,
    machine: MachineKind,
    /// Its counts under `depriv`.
    runs: Vec<&'a Run>,
}

/// What has an operation been measured as, and in which run was it cheapest?
struct Best<'a> {
    name: &'static str,
    cost: f64,
    run: &'a Run,
}

/// All guests on all emulators, by guest.
fn places(results: &Results) -> Vec<Place<'_>> {
    let machines = results.machines();
    let guests = results.guests().into_iter();
    let pairs = guests.flat_map(|guest| machines.iter().map(move |&machine| (guest, machine)));
    let places = pairs.map(|(guest, machine)| {
        let mut runs = results.select(guest, machine, Clock::Count);
        runs.retain(|run| run.column.backend == Backend::Depriv && run.is_measured());
        Place { guest, machine, runs }
    });
    places.filter(|place| !place.runs.is_empty()).collect()
}

impl<'a> Place<'a> {
    fn title(&self) -> String {
        format!("{} on {}", self.guest, machine_name(self.machine))
    }

    fn best(&self, limit: &catalog::Limit) -> Option<Best<'a>> {
        limit.names.iter().find_map(|name| {
            let costs = self.runs.iter().filter_map(|run| Some(Best { name, cost: run.cost(name)?, run }));
            costs.min_by(|a, b| a.cost.total_cmp(&b.cost))
        })
    }

    fn verdict(&self, limit: &catalog::Limit) -> String {
        let Some(Best { cost, run, .. }) = self.best(limit) else { return "not measured".into() };
        let word = met(cost, limit.instructions);
        format!("{}, {word} ({})", figure(cost), run.column.policy.map(super::name).unwrap_or_default())
    }
}

/// The limits of exits by NPT and EPT: a third of the peer's, on the same emulator.
pub(super) fn hardware_table(results: &Results) -> String {
    let mut table = Table::new(&["operation", "on", "KVM", "limit", "Gnomon"]);
    for operation in HARDWARE_EXITS {
        for machine in results.machines() {
            let Some(peer) = peer::instructions(machine, Mmu::Nested, operation) else { continue };
            let runs = results.select(BUILT_IN, machine, Clock::Count);
            let nested = runs.into_iter().find(|run| run.column.mmu == Some(Mmu::Nested));
            let Some(cost) = nested.and_then(|run| run.cost(operation)) else { continue };
            let limit = (peer / 3.0).round();
            table.push(vec![
                format!("`{operation}`"),
                machine_name(machine).into(),
                figure(peer),
                figure(limit),
                format!("{}, {}", figure(cost), met(cost, limit)),
            ]);
        }
    }
    if table.is_empty() {
        return String::new();
    }
    format!("\n{HARDWARE}\n{}", table.markdown())
}

/// What misses its limit: the exits that it has, and what so many of the cheapest exit cost.
pub(super) fn misses(results: &Results) -> String {
    let mut table = Table::new(&[
        "guest",
        "operation",
        "instructions",
        "limit",
        "exits of one",
        "as many trivial exits",
        "the rest",
    ]);
    for place in places(results) {
        for limit in &LIMITS {
            let Some(Best { name, cost, run }) = place.best(limit).filter(|best| best.cost > limit.instructions) else {
                continue;
            };
            let exits = run.operation(name).and_then(Operation::all_exits).unwrap_or(0.0);
            let trivial = TRIVIAL.iter().find_map(|name| run.cost(name)).unwrap_or(0.0) * exits;
            table.push(vec![
                place.title(),
                format!("`{name}`"),
                figure(cost),
                figure(limit.instructions),
                report::exits_of(run, name),
                figure(trivial),
                figure(cost - trivial),
            ]);
        }
    }
    if table.is_empty() {
        return String::new();
    }
    format!("\n### What misses, and where it goes\n\n{MISSES}\n{}", table.markdown())
}

fn met(cost: f64, limit: f64) -> &'static str {
    if cost <= limit { "met" } else { "**missed**" }
}
