//! The guests by name.

/// What a run of a guest is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Prints results (TAP) on COM1, the same on every machine, bare or not, and ends with status 0.
    Tap,
    /// As [`Kind::Tap`], but QEMU's own CPU fails some of it; there a run under Gnomon counts for itself.
    TapOffQemu,
    /// As [`Kind::Tap`], on a machine with an IDE disk of at least 64 sectors as primary master, which it changes.
    Disk,
    /// Ends by resetting the machine after its last line.
    Resets,
    /// Does what a hypervisor must survive; what happens to the guest is not compared.
    Hostile,
    /// Sends back what is typed.
    Echo,
    /// Prints costs.
    Bench,
    /// Prints a story.
    Demo,
}

/// One guest: a 32-bit multiboot1 kernel.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Name of the binary, of the source (`asm/NAME.s`, unless it is a demo or benchmark) and of the image (`NAME.elf`).
    pub name: &'static str,
    /// What it shows, in a few words.
    pub description: &'static str,
    /// Memory it needs, in MiB.
    pub memory: u32,
    /// What a run is good for.
    pub kind: Kind,
    /// Command lines worth running; empty when it takes none.
    pub command_lines: &'static [&'static str],
}

const fn tap(name: &'static str, description: &'static str) -> Guest {
    Guest { name, description, memory: 32, kind: Kind::Tap, command_lines: &[] }
}

/// Every case of the guest `hostile`.
const HOSTILE: &[&str] = &[
    "case=wild-jump",
    "case=wild-jump-high",
    "case=cr3-nowhere",
    "case=cr3-each-bit",
    "case=pde-nowhere",
    "case=pte-nowhere",
    "case=pde-self",
    "case=stack-in-page-table",
    "case=gdt-in-page-table",
    "case=code-in-page-table",
    "case=gdt-nowhere",
    "case=idt-nowhere",
    "case=idt-garbage",
    "case=tss-nowhere",
    "case=tss-garbage",
    "case=ldt-garbage",
    "case=long-code",
    "case=jump-selectors",
    "case=jump-selectors-ring3",
    "case=return-selectors",
    "case=load-selectors",
    "case=load-selectors-ring3",
    "case=iret-vm",
    "case=iret-vm-ring3",
    "case=iret-flags",
    "case=triple-fault",
    "case=fault-loop",
    "case=fault-loop-forever",
    "case=gate-absent",
    "case=stack-gone",
    "case=spin",
    "case=halt",
    "case=write-memory",
    "case=write-low-memory",
    "case=ports",
    "case=string-ports",
    "case=msrs",
    "case=long-mode",
    "case=control-bits",
    "case=no-protection",
    "case=debug-registers",
    "case=breakpoint-storm",
    "case=breakpoint-moved",
    "case=single-step",
    "case=nested-task",
    "case=task-gate",
    "case=task-cr3",
    "case=apic-timer-storm",
    "case=self-ipi-storm",
    "case=stuck-line",
    "case=timer-reloads",
    "case=keyboard-storm",
    "case=disk-storm",
    "case=device-memory",
];

/// All guests, in the order in which a reader or a test run should meet them.
pub const GUESTS: &[Guest] = &[
    tap("privileged", "privileged instructions work in ring 0 and fault in ring 3"),
    tap("boot", "what a boot loader leaves: a stack, descriptors"),
    tap("rings", "gates, far transfers and IRET between rings"),
    tap("sensitive", "sensitive instructions that do not trap outside ring 0"),
    tap("hot-sites", "CLI, STI, PUSHF and POPF that run often: flags, interrupts, single steps, jumps among them"),
    tap("hot-calls", "calls and SYSEXIT behind CLI, STI and POPF that run often, and what serializes"),
    tap("often", "what a monitor may do in a shorter way once it knows the instruction"),
    tap("self-code", "a kernel that reads, writes and jumps into its own code"),
    tap("task-switch", "hardware task switches: JMP, CALL, IRET, task gates, CR3, refusals"),
    tap("task-gates", "task gates as handlers: NMI, interrupts, exceptions, a jump back, virtual-8086 mode, SMAP"),
    tap("v86", "virtual-8086 mode entered by IRET and left by an exception"),
    tap("segments", "segment loads, what a return to an outer ring empties, the LDT"),
    tap("faults", "vectors, error codes and addresses of exceptions, nested ones, double faults"),
    Guest { kind: Kind::TapOffQemu, ..tap("breakpoints", "hardware breakpoints and single steps: where, DR6, RF, GD") },
    tap("delivery", "events whose delivery meets a fault, a task, a page table, another event"),
    Guest { kind: Kind::TapOffQemu, ..tap("time-stamp", "the time stamp counter written, IA32_TSC_ADJUST, CR4.TSD") },
    tap("iopl", "IOPL and the I/O permission bitmap"),
    tap("syscalls", "system calls by INT 0x80, and ring 3 seen from the kernel"),
    tap("sysenter", "SYSENTER and SYSEXIT"),
    tap("timer", "timer interrupts with CLI, STI and HLT"),
    tap("apic", "local APIC and I/O APIC: priorities, timer, redirection, NMI"),
    tap("upper-half", "how a small Unix begins: upper half, MP table, APIC timer, two processes"),
    Guest { kind: Kind::Disk, ..tap("ide", "an IDE disk by programmed I/O and by the bus master") },
    tap("devices", "clock, keyboard controller, serial interrupts, ROM, PCI"),
    tap("io", "PIC, PIT and UART registers, INS and OUTS"),
    tap("paging-on-off", "paging switched on and off"),
    tap("demand-paging", "pages that appear when they are touched"),
    tap("protection", "U/S, R/W, WP and presence against read, write and fetch from both rings"),
    tap("user-pages", "SMEP, SMAP and UMIP, as CPUID has them"),
    tap("wp-zero", "kernel writes to read-only pages with CR0.WP=0"),
    tap("accessed-dirty", "accessed and dirty bits"),
    tap("cr3-switch", "many page directories, shared tables, changes while inactive"),
    tap("invlpg", "what INVLPG and CR3 loads must make visible"),
    tap("global", "global pages: what INVLPG, CR4.PGE and CR3 loads must make visible"),
    tap("pse", "4 MiB pages, splitting them, page tables inside them"),
    Guest {
        command_lines: &["probe=writes", "probe=reads"],
        ..tap("full-directory", "a page directory without an empty entry")
    },
    tap("pae", "PAE paging: halves of entries, 2 MiB pages, NX, PDPTEs"),
    tap("self-map", "a page directory that maps itself"),
    tap("aliases", "page tables written through aliases, by many instructions and widths"),
    tap("memory-ops", "integer instructions on memory where they are emulated, and where they are not"),
    tap("device-ops", "instructions with their operands, stack or tables in device memory"),
    tap("stress", "random page-table changes against a model"),
    Guest { kind: Kind::Resets, ..tap("triple-fault", "ends by a triple fault") },
    Guest { kind: Kind::Echo, ..tap("echo", "sends back what is typed, until a byte 4 comes") },
    Guest {
        kind: Kind::Hostile,
        command_lines: &["seed=1", "seed=2", "seed=3", "seed=4", "seed=6"],
        ..tap("random", "random bytes as instructions, in ring 0 and ring 3")
    },
    Guest { kind: Kind::Hostile, command_lines: HOSTILE, ..tap("hostile", "one way to break out, chosen by case=") },
    Guest { kind: Kind::Bench, memory: 96, ..tap("bench", "what the operations of a kernel cost, by RDTSC") },
    Guest { kind: Kind::Demo, ..tap("demo", "a tiny Unix: malloc, brk, a new page table entry") },
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{GUESTS, Kind};

    #[test]
    fn every_source_is_listed_once() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("asm");
        let mut sources: Vec<String> = fs::read_dir(folder)
            .expect("the folder of sources")
            .filter_map(|entry| entry.expect("readable").file_name().to_str()?.strip_suffix(".s").map(str::to_owned))
            .collect();
        sources.sort();
        let mut listed: Vec<_> = GUESTS
            .iter()
            .filter(|guest| !matches!(guest.kind, Kind::Demo | Kind::Bench))
            .map(|guest| guest.name.to_owned())
            .collect();
        listed.sort();
        assert_eq!(sources, listed);
    }

    #[test]
    fn every_case_of_hostile_is_listed() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("asm/hostile.s");
        let source = fs::read_to_string(source).expect("the source");
        let in_source: Vec<_> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("a_case "))
            .filter_map(|rest| rest.split_once(',').map(|(name, _)| format!("case={name}")))
            .collect();
        let hostile = GUESTS.iter().find(|guest| guest.name == "hostile").expect("listed");
        assert_eq!(in_source, hostile.command_lines);
    }
}
