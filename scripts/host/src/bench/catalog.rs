//! What the operations of the guest `bench` are, in words. Those of nanobench have the same names and meanings.

/// Groups of operations, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Adams and Agesen, ASPLOS 2006.
    Seven,
    /// Instructions, exceptions, rings, interrupts.
    Exits,
    /// Page-table entries.
    Entries,
    /// Address spaces and working sets.
    Spaces,
    /// Processes.
    Processes,
}

impl Family {
    /// Every family.
    pub(super) const ALL: [Self; 5] = [Self::Seven, Self::Exits, Self::Entries, Self::Spaces, Self::Processes];

    /// A heading.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Seven => "The seven of Adams and Agesen (ASPLOS 2006)",
            Self::Exits => "Instructions, exceptions, rings and interrupts",
            Self::Entries => "Page-table entries and page faults",
            Self::Spaces => "Address spaces and working sets",
            Self::Processes => "Processes",
        }
    }
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// As the guest prints it.
    pub(super) name: &'static str,
    /// Where it belongs.
    pub(super) family: Family,
    /// What is done once, and what is counted as one.
    pub(super) about: &'static str,
}

macro_rules! catalog {
    ($($family:ident { $($name:literal $about:literal)* })*) => {
        /// Every operation of the guest `bench`, in the order of the report.
        pub(super) const CATALOG: &[Entry] = &[$($(Entry { name: $name, family: Family::$family, about: $about },)*)*];
    };
}

catalog! {
    Seven {
        "int80" "syscall: INT 0x80 from ring 3, IRET back"
        "inb" "in: IN from a port where nobody answers"
        "cr0_write" "cr8wr, here CR0: read CR0, toggle TS, write it"
        "call_ret" "call/ret: CALL and RET"
        "pgfault_kernel" "pgfault: a touch in ring 0 of an absent page, which the handler maps"
        "div0_kernel" "divzero: DIV by zero in ring 0, the handler skips it"
        "ptemod" "ptemod: a present entry gets another frame, 64 entries in turn"
    }
    Exits {
        "empty" "two instructions of a loop, in every figure here"
        "rdtsc" "RDTSC"
        "cpuid" "CPUID leaf 0"
        "outb" "OUT to a port where nobody answers"
        "out_imm" "OUT to port 0x80, the delay port"
        "cli" "CLI"
        "sti_cli" "STI and CLI"
        "pushf_popf" "PUSHF and POPF"
        "clts" "CLTS"
        "cr0_read" "read CR0"
        "cr3_read" "read CR3"
        "lidt" "LIDT"
        "int80_kernel" "INT 0x80 and IRET within ring 0"
        "ud2_kernel" "UD2 in ring 0, the handler skips it"
        "div0_user" "DIV by zero in ring 3, the handler skips it"
        "sysenter" "SYSENTER and SYSEXIT"
        "syscall" "32-bit SYSCALL and SYSRET (AMD)"
        "user_roundtrip" "IRET to ring 3, INT back"
        "irq_latency" "a waiting timer interrupt: from STI to the handler"
        "hlt_wake" "a waiting timer interrupt: STI, HLT, handler with EOI, back"
    }
    Entries {
        "pte_same" "an entry is written with the value it has"
        "pte_clear_set" "an entry is cleared and set again"
        "pte_btr_bts" "BTR and BTS of an entry's present bit"
        "ptemod1" "the same entry gets another frame each time"
        "ptemod_touch" "ptemod, then the page is read (through a stale TLB entry or not)"
        "ptemod_invlpg" "ptemod, then INVLPG"
        "ptemod_invlpg_touch" "ptemod, INVLPG, then the page is read"
        "burst1" "1 entry changed, CR3 load, 1 page read; by entry"
        "burst64" "64 entries changed, CR3 load, 64 pages read; by entry"
        "burst1024" "1,024 entries changed, CR3 load, 1,024 pages read; by entry"
        "burst1_invlpg" "1 entry changed, INVLPG, 1 page read; by entry"
        "burst64_invlpg" "64 entries changed, 64 INVLPGs, 64 pages read; by entry"
        "burst1024_invlpg" "1,024 entries changed, 1,024 INVLPGs, 1,024 pages read; by entry"
        "dirty" "first write to a page whose entry has A but not D"
        "accessed_r" "first read of a page whose entry has neither A nor D"
        "accessed_dirty_w" "first write to a page whose entry has neither A nor D"
        "pf_skip" "a page fault in ring 0, the handler skips the instruction"
        "pgfault_user" "a touch in ring 3 of an absent page, which the handler maps; 4,096 pages"
        "pf_map_unmap" "a page fault, mapped by the handler, then unmapped with INVLPG"
        "cr3_then_retouch" "CR3 load, then 4,096 mapped pages are read; by page"
        "map4m_notouch_cr3" "1,024 pages mapped and unmapped, one CR3 load; by page"
        "map4m_touch_cr3" "1,024 pages mapped, touched, unmapped, one CR3 load; by page"
        "map4m_touch_invlpg" "1,024 pages mapped, touched, unmapped with INVLPG each; by page"
        "pse4m_touch64" "a 4 MiB page mapped, 64 places in it touched, unmapped"
    }
    Spaces {
        "invlpg" "INVLPG"
        "invlpg_touch" "INVLPG, then the page is read"
        "cr3_same" "CR3 load of the same value"
        "cr3_1" "CR3 load, 1 address space"
        "cr3_2" "CR3 load, 2 address spaces in turn"
        "cr3_16" "CR3 load, 16 address spaces in turn"
        "cr3_64" "CR3 load, 64 address spaces in turn"
        "touch64" "64 pages read, without a CR3 load"
        "cr3_1_touch64" "CR3 load, 64 pages read, 1 address space"
        "cr3_2_touch64" "CR3 load, 64 pages read, 2 address spaces"
        "cr3_16_touch64" "CR3 load, 64 pages read, 16 address spaces"
        "cr3_64_touch64" "CR3 load, 64 pages read, 64 address spaces"
        "set_16" "a read in a working set of 16 pages"
        "set_64" "a read in a working set of 64 pages"
        "set_256" "a read in a working set of 256 pages"
        "set_1024" "a read in a working set of 1,024 pages"
        "set_4096" "a read in a working set of 4,096 pages"
        "set_16384" "a read in a working set of 16,384 pages"
        "mix_0" "CR3 load, 64 pages read, nothing changed"
        "mix_1" "1 entry changed with INVLPG, CR3 load, 64 pages read"
        "mix_4" "4 entries changed with INVLPG each, CR3 load, 64 pages read"
        "mix_16" "16 entries changed with INVLPG each, CR3 load, 64 pages read"
        "mix_64" "64 entries changed with INVLPG each, CR3 load, 64 pages read"
    }
    Processes {
        "fork_copy" "1,024 entries copied to a child and write-protected, CR3 load; by page"
        "exec_teardown" "1,024 used entries exchanged with 0, the table dropped, CR3 load; by page"
        "forkwait" "fork of 64 pages, the child writes 16 in ring 3, calls, ends; the parent writes them; by process"
    }
}

/// A limit on an operation under shadow tables, best policy allowed.
pub(super) struct Limit {
    /// The operation: what guests call it; the first that one has.
    pub(super) names: &'static [&'static str],
    /// What it stands for.
    pub(super) what: &'static str,
    /// Instructions at most.
    pub(super) instructions: f64,
}

/// A third of what KVM's shadow paging takes (the peer), and what hardware does without exits in a bounded number.
pub(super) const LIMITS: [Limit; 11] = [
    Limit { names: &["cr0_read", "cpuid"], what: "a trivial exit, as CPUID is for KVM", instructions: 350.0 },
    Limit { names: &["invlpg"], what: "INVLPG", instructions: 430.0 },
    Limit { names: &["ptemod_invlpg_touch"], what: "PTE write, INVLPG, touch", instructions: 1180.0 },
    Limit { names: &["dirty"], what: "first write to a clean page", instructions: 1260.0 },
    Limit { names: &["pf_skip"], what: "true page fault", instructions: 550.0 },
    Limit { names: &["pgfault_user"], what: "demand page fault", instructions: 1820.0 },
    Limit { names: &["cr3_64"], what: "CR3 load among 64 spaces", instructions: 1000.0 },
    Limit {
        names: &["burst64", "ptemod_cr3_touch"],
        what: "64 PTE writes, CR3, touches; by entry",
        instructions: 3300.0,
    },
    Limit { names: &["map4m_touch_invlpg"], what: "map, touch, unmap with INVLPG; by page", instructions: 1320.0 },
    Limit { names: &["map4m_touch_cr3"], what: "map, touch, unmap with one CR3 load; by page", instructions: 680.0 },
    Limit { names: &["int80"], what: "system call round trip", instructions: 700.0 },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn is_described(name: &str) -> bool {
        CATALOG.iter().any(|entry| entry.name == name)
    }

    /// Names of operations in the guest's sources, those that macros make as well.
    #[test]
    fn every_operation_of_the_guest_is_described() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/guests/asm");
        let mut source = String::new();
        for file in ["exits.s", "mmu.s", "family.s"] {
            source.push_str(&std::fs::read_to_string(folder.join(file)).unwrap());
        }
        for line in source.lines() {
            let mut words = line.split_whitespace();
            let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
            let name = second.trim_end_matches(',').trim_matches('"');
            let name = match first {
                "simple" | "operation" | "user" | "changes" if !name.contains('\\') => name.to_owned(),
                "working_set" => format!("set_{name}"),
                "mix" => format!("mix_{name}"),
                _ => continue,
            };
            assert!(is_described(&name), "{name} is not described");
        }
    }

    #[test]
    fn names_are_unique_and_limits_are_of_operations() {
        for (index, entry) in CATALOG.iter().enumerate() {
            assert!(CATALOG[index + 1..].iter().all(|other| other.name != entry.name), "{}", entry.name);
        }
        assert!(LIMITS.iter().all(|limit| limit.names.first().is_some_and(|name| is_described(name))));
    }
}
