//! The guests by name.

/// What a run of a guest is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Prints results (TAP) on COM1, the same on every machine, bare or not, and ends with status 0.
    Tap,
    /// Ends by resetting the machine after its last line.
    Resets,
    /// Does what a hypervisor must survive; what happens to the guest is not compared.
    Hostile,
    /// Prints costs.
    Bench,
    /// Prints a story.
    Demo,
}

/// One guest: a 32-bit multiboot1 kernel.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Name of the binary, of the source (`asm/NAME.s`) and of the image (`NAME.elf`).
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

/// All guests, in the order in which a reader or a test run should meet them.
pub const GUESTS: &[Guest] = &[
    tap("privileged", "privileged instructions work in ring 0 and fault in ring 3"),
    tap("timer", "timer interrupts with CLI, STI and HLT"),
    tap("demand-paging", "pages that appear when they are touched"),
];
