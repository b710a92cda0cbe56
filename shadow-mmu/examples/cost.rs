//! Runs one hot path many times, for counting its instructions from outside:
//!
//! ```text
//! cargo build --release -p shadow-mmu --example cost
//! valgrind --tool=callgrind target/release/examples/cost <path> <times> [<policy>]      (or: perf stat -e instructions:u ...)
//! ```
//!
//! The cost of a path, with the loop's own cost (path `nothing`), is the difference between two runs, divided by the difference
//! of their `times`. Memory and tables are plain arrays, so that what is counted is the library and little else.

use std::cell::Cell;
use std::process::ExitCode;

use shadow_mmu::{
    Access, AccessKind, CmpxchgError, Config, ControlWrite, Controls, Fault, Gfn, GfnKind, Gpa, GuestMem, Gva, Pfn,
    Policy, Privilege, Refused, ShadowMmu, Spte, TableMem, cr0, cr4, efer,
};

const GUEST_FRAMES: u64 = 1024;
const TABLE_FRAMES: u64 = 64;

struct Memory(Vec<Cell<u32>>);

impl Memory {
    fn cell(&self, gpa: Gpa) -> Option<&Cell<u32>> {
        self.0.get((gpa.raw() / 4) as usize)
    }

    fn put(&self, gpa: u64, value: u32) {
        if let Some(cell) = self.cell(Gpa::new(gpa)) {
            cell.set(value);
        }
    }
}

impl GuestMem for Memory {
    fn kind(&self, gfn: Gfn) -> GfnKind {
        if gfn.raw() < GUEST_FRAMES { GfnKind::Ram(Pfn::new(gfn.raw() + 0x1000)) } else { GfnKind::Hole }
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        self.cell(gpa).map(Cell::get)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        Some(u64::from(self.read_u32(gpa)?) | u64::from(self.read_u32(gpa.add(4))?) << 32)
    }

    fn cmpxchg_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<(), CmpxchgError> {
        let cell = self.cell(gpa).ok_or(CmpxchgError::NoMemory)?;
        if cell.replace(new) == old { Ok(()) } else { Err(CmpxchgError::Changed) }
    }

    fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        self.cmpxchg_u32(gpa, old as u32, new as u32)?;
        self.cmpxchg_u32(gpa.add(4), (old >> 32) as u32, (new >> 32) as u32)
    }
}

struct Tables(Vec<[Spte; 512]>);

impl TableMem for Tables {
    fn load(&self, table: Pfn, index: usize) -> Spte {
        self.0.get(table.raw() as usize).and_then(|entries| entries.get(index)).copied().unwrap_or_default()
    }

    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        let entries = self.0.get_mut(table.raw() as usize).ok_or(Refused)?;
        *entries.get_mut(index).ok_or(Refused)? = spte;
        Ok(())
    }

    fn clear(&mut self, table: Pfn) {
        if let Some(entries) = self.0.get_mut(table.raw() as usize) {
            entries.fill(Spte::ABSENT);
        }
    }

    fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
        self.clear(table);
        Ok(())
    }

    fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> {
        self.clear(table);
        Ok(())
    }
}

type Mmu = ShadowMmu<Memory, Tables, ()>;

fn blank(policy: Policy) -> Mmu {
    let memory = Memory(vec![Cell::new(0); GUEST_FRAMES as usize * 1024]);
    let tables = Tables(vec![[Spte::ABSENT; 512]; TABLE_FRAMES as usize]);
    let config = Config { policy, ..Config::new((0..TABLE_FRAMES).map(Pfn::new).collect(), GUEST_FRAMES) };
    ShadowMmu::new(memory, tables, (), config).expect("a good configuration")
}

/// Directories in frames 1 and 3, one table in frame 2: 512 pages from frame 16 on.
fn machine(policy: Policy) -> Mmu {
    let mut mmu = blank(policy);
    mmu.mem().put(0x1000, 0x2067);
    mmu.mem().put(0x3000, 0x2067);
    for page in 0..512u32 {
        mmu.mem().put(0x2000 + u64::from(page) * 4, (page + 16) << 12 | 0x67);
    }
    load(&mut mmu, 1, ControlWrite::Reset);
    touch(&mut mmu, 0, AccessKind::Write);
    mmu
}

/// The same for PAE paging, with PDPTs in frames 1 and 3, which name the directories in frames 4 and 5.
fn wide_machine(policy: Policy) -> Mmu {
    let mut mmu = blank(policy);
    for (pdpt, directory) in [(0x1000, 0x4000), (0x3000, 0x5000)] {
        mmu.mem().put(pdpt, directory | 1);
        mmu.mem().put(directory.into(), 0x2067);
    }
    for page in 0..512u32 {
        mmu.mem().put(0x2000 + u64::from(page) * 8, (page + 16) << 12 | 0x67);
    }
    wide_load(&mut mmu, 1, ControlWrite::Reset);
    touch(&mut mmu, 0, AccessKind::Write);
    mmu
}

fn wide_load(mmu: &mut Mmu, frame: u64, why: ControlWrite) {
    let cr0 = cr0::PE | cr0::WP | cr0::PG;
    let controls = Controls { cr0, cr3: frame << 12, cr4: cr4::PAE, ..Controls::default() };
    let _plan = mmu.load_controls(std::hint::black_box(controls), why).expect("no refusal");
}

/// The same for 4-level paging, with PML4s in frames 1 and 3, a PDPT in frame 4 and a directory in frame 5; kernel and user have used
/// it.
fn long_machine(policy: Policy) -> Mmu {
    let mut mmu = blank(policy);
    for (entry, table) in [(0x1000, 0x4000), (0x3000, 0x4000), (0x4000, 0x5000), (0x5000, 0x2000)] {
        mmu.mem().put(entry, table | 0x67);
    }
    for page in 0..512u32 {
        mmu.mem().put(0x2000 + u64::from(page) * 8, (page + 16) << 12 | 0x67);
    }
    long_load(&mut mmu, 1, ControlWrite::Reset);
    touch(&mut mmu, 0, AccessKind::Write);
    user_touch(&mut mmu, 0);
    mmu
}

fn long_load(mmu: &mut Mmu, frame: u64, why: ControlWrite) {
    let cr0 = cr0::PE | cr0::WP | cr0::PG;
    let efer = efer::LME | efer::LMA;
    let controls = Controls { cr0, cr3: frame << 12, cr4: cr4::PAE, efer, pkru: 0 };
    let _plan = mmu.load_controls(std::hint::black_box(controls), why).expect("no refusal");
}

fn user_touch(mmu: &mut Mmu, page: u64) {
    let access = Access { kind: AccessKind::Write, privilege: Privilege::User };
    let _outcome = mmu.on_fault(std::hint::black_box(Fault { gva: Gva::new(page << 12), access }));
}

fn wide_write(mmu: &mut Mmu, page: u64, gpte: u32) {
    let gpa = Gpa::new(0x2000 + page * 8);
    mmu.mem().put(gpa.raw(), gpte);
    let _plan = mmu.on_write(std::hint::black_box(gpa), 4);
}

fn load(mmu: &mut Mmu, frame: u64, why: ControlWrite) {
    let controls = Controls { cr0: cr0::PE | cr0::WP | cr0::PG, cr3: frame << 12, ..Controls::default() };
    let _plan = mmu.load_controls(std::hint::black_box(controls), why).expect("no refusal");
}

fn touch(mmu: &mut Mmu, page: u64, kind: AccessKind) {
    let fault = Fault { gva: Gva::new(page << 12), access: Access { kind, privilege: Privilege::Supervisor } };
    let _outcome = mmu.on_fault(std::hint::black_box(fault));
}

fn write(mmu: &mut Mmu, page: u64, gpte: u32) {
    let gpa = Gpa::new(0x2000 + page * 4);
    mmu.mem().put(gpa.raw(), gpte);
    let _plan = mmu.on_write(std::hint::black_box(gpa), 4);
}

fn usage() {
    eprintln!("usage: cost nothing|ptemod|ptenew|hidden|ptezap|cr3|cr3same|invlpg|trap|true|absent [times [policy]]");
    eprintln!("       cost native-invlpg|native-cr3 [times [policy]]");
    eprintln!("       cost pae-ptemod|pae-hidden|pae-cr3 [times [policy]]");
    eprintln!("       cost long-ptemod|long-hidden|long-views|long-cr3 [times [policy]]");
}

fn build(path: &str, policy: Policy) -> Mmu {
    match path.split('-').next() {
        Some("pae") => wide_machine(policy),
        Some("long") => long_machine(policy),
        _ => machine(policy),
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let times: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let Ok(policy) = arguments.next().unwrap_or_else(|| "write-protect".into()).parse::<Policy>() else {
        eprintln!("cost: policy: expected {}", Policy::WORDS);
        return ExitCode::FAILURE;
    };
    let mut mmu = build(&path, policy);
    for n in 0..times {
        if !step(&mut mmu, &path, n) {
            usage();
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Does the `n`th piece of work of a path; says whether there is such a path.
fn step(mmu: &mut Mmu, path: &str, n: u64) -> bool {
    let page = 1 + n % 500;
    let frame = (n % 700 + 20) as u32;
    match path {
        // A present entry gets another frame.
        "ptemod" => write(mmu, page, frame << 12 | 0x67),
        // An entry appears without A and goes again: nothing was shadowed.
        "ptenew" => write(mmu, page, frame << 12 | 7),
        // A hidden fault: zap by a write, fill by a fault. The write's cost is `ptezap`.
        "hidden" => {
            mmu.mem().put(0x2000 + page * 4, (page as u32 + 16) << 12 | 0x67);
            touch(mmu, page, AccessKind::Write);
            write(mmu, page, 0);
        }
        // Makes and clears a present entry by writes.
        "ptezap" => {
            write(mmu, page, frame << 12 | 0x67);
            write(mmu, page, 0);
        }
        // In long mode a written entry is followed in both views.
        "pae-ptemod" | "long-ptemod" => wide_write(mmu, page, frame << 12 | 0x67),
        "pae-hidden" | "long-hidden" => {
            mmu.mem().put(0x2000 + page * 8, (page as u32 + 16) << 12 | 0x67);
            touch(mmu, page, AccessKind::Write);
            wide_write(mmu, page, 0);
        }
        "pae-cr3" => wide_load(mmu, 1 + 2 * (n & 1), ControlWrite::Cr3),
        "long-cr3" => long_load(mmu, 1 + 2 * (n & 1), ControlWrite::Cr3),
        // As `long-hidden`, from both privileges: what each view costs.
        "long-views" => {
            mmu.mem().put(0x2000 + page * 8, (page as u32 + 16) << 12 | 0x67);
            touch(mmu, page, AccessKind::Write);
            user_touch(mmu, page);
            wide_write(mmu, page, 0);
        }
        "cr3" => load(mmu, 1 + 2 * (n & 1), ControlWrite::Cr3),
        "nothing" => {
            std::hint::black_box(frame);
        }
        "cr3same" => load(mmu, 1, ControlWrite::Cr3),
        "invlpg" => {
            let _plan = mmu.on_invlpg(std::hint::black_box(Gva::new(page << 12)));
        }
        // The guest writes an entry natively, then INVLPG: for tables out of sync and the virtual TLB.
        "native-invlpg" => {
            if n == 0 {
                mmu.mem().put(0x2000 + 2044, 0x2067);
                touch(mmu, 511, AccessKind::Write);
                (1..501).for_each(|page| touch(mmu, page, AccessKind::Write));
            }
            mmu.mem().put(0x2000 + page * 4, frame << 12 | 0x67);
            let _plan = mmu.on_invlpg(std::hint::black_box(Gva::new(page << 12)));
        }
        // The first write to a table, 64 native writes, and a CR3 load.
        "native-cr3" => {
            mmu.mem().put(0x2000 + 2044, 0x2067);
            touch(mmu, 511, AccessKind::Write);
            (1..65).for_each(|page| mmu.mem().put(0x2000 + page * 4, (page as u32 + frame % 16) << 12 | 0x67));
            load(mmu, 1, ControlWrite::Cr3);
        }
        // A write fault on a tracked table, up to the answer "emulate".
        "trap" => {
            mmu.mem().put(0x27fc, 0x2067);
            touch(mmu, 511, AccessKind::Write);
        }
        "true" => {
            let fault = Fault {
                gva: Gva::new(0x40_0000),
                access: Access { kind: AccessKind::Read, privilege: Privilege::User },
            };
            let _outcome = mmu.on_fault(std::hint::black_box(fault));
        }
        // The same as the kernel asks when the real error code has the reserved bit (`absent=on`).
        "absent" => {
            let fault = Fault {
                gva: Gva::new(0x40_0000),
                access: Access { kind: AccessKind::Read, privilege: Privilege::User },
            };
            if mmu.known_absent(std::hint::black_box(fault)).is_none() {
                let _outcome = mmu.on_fault(fault);
            }
        }
        _ => return false,
    }
    true
}
