//! The library beside the reference: every event is done to both, and all that a guest or a host can see is compared. Panics where
//! they differ.
//!
//! It uses the library through its public interface only, as its documentation says.

use shadow_mmu::{
    Access, AccessKind, Config, ControlFault, ControlWrite, Controls, Fault, FlushPlan, Gfn, Gpa, Gva, Outcome, Pfn,
    Policy, Privilege, ShadowMmu, SyncPolicy, TranslateError, VmStop,
};

use crate::caches::Caches;
use crate::cpu::Cpu;
use crate::event::{Event, pages};
use crate::guest;
use crate::host::{Memory, Tables};
use crate::ram::{FRAMES, MMIO, ROM, Ram};
use crate::reference::{Load, Mode, Regs, SMAP, SMEP, Verdict, WP, Walk, What, Who};

/// The library under test.
pub type Mmu = ShadowMmu<Memory, Tables>;

/// How a machine is built.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Frames for shadow tables.
    pub pool: u64,
    /// The library's switches.
    pub policy: Policy,
    /// The real CPU has a TLB.
    pub caching: bool,
    /// The emulator knows nothing: each caught write is stepped over an opened frame.
    pub stepping: bool,
}

/// What the host would know of a frame if nothing escaped it.
#[derive(Clone, Copy, Debug)]
struct Use {
    accessed: bool,
    written: bool,
    logged: bool,
}

/// Both sides.
#[derive(Debug)]
pub struct Machine {
    /// The library.
    pub mmu: Mmu,
    /// The reference's memory.
    twin: Ram,
    regs: Regs,
    cpu: Cpu,
    caches: Caches,
    uses: Vec<Use>,
    setup: Setup,
    /// Compare and audit after each event.
    pub checking: bool,
}

fn access_of(what: What, who: Who) -> Access {
    let kind = match what {
        What::Read => AccessKind::Read,
        What::Write => AccessKind::Write,
        What::Fetch => AccessKind::Fetch,
    };
    let privilege = match who {
        Who::User => Privilege::User,
        Who::Supervisor => Privilege::Supervisor,
        Who::SupervisorAc => Privilege::SupervisorAc,
    };
    Access { kind, privilege }
}

fn controls_of(regs: &Regs) -> Controls {
    Controls { cr0: regs.cr0, cr3: regs.cr3, cr4: regs.cr4, efer: regs.efer, pkru: regs.pkru }
}

impl Machine {
    /// A machine with paging off.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let config = Config { policy: setup.policy, ..Config::new(Tables::frames(setup.pool), FRAMES) };
        let mmu = ShadowMmu::new(Memory::default(), Tables::new(setup.pool), (), config).expect("a good configuration");
        let cpu = Cpu::new(setup.caching);
        let uses = vec![Use { accessed: true, written: true, logged: true }; FRAMES as usize];
        let mut machine = Self {
            mmu,
            twin: Ram::default(),
            regs: Regs::default(),
            cpu,
            caches: Caches::default(),
            uses,
            setup,
            checking: true,
        };
        let first = Regs { cr0: 1 | WP, ..Regs::default() };
        let plan = machine.mmu.load_controls(controls_of(&first), ControlWrite::Reset).expect("paging off");
        machine.regs = first;
        machine.execute(plan);
        machine
    }

    /// The registers.
    #[must_use]
    pub fn regs(&self) -> &Regs {
        &self.regs
    }

    fn execute(&mut self, plan: FlushPlan) {
        self.cpu.execute(plan);
    }

    /// The real CPU makes an access, on the root for its privilege. A 64-bit guest's kernel runs in ring 3, too.
    fn try_cpu(&mut self, gva: u64, what: What, who: Who) -> Option<Pfn> {
        let root = self.mmu.root_for(access_of(what, who).privilege).expect("control registers were loaded");
        let ring = if self.regs.is_long() { Who::User } else { who };
        self.cpu.access(self.mmu.tables(), root, gva, (what, ring))
    }

    /// Does one event.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Access(gva, what, who, bytes) => {
                self.access(gva, what, who, &bytes);
            }
            Event::Device(at, bytes) => self.device(at, &bytes),
            Event::Invlpg(gva) => self.invlpg(gva),
            Event::Space(number) => drop(self.set_cr3(guest::space(self.regs.mode(), number))),
            Event::Cr3(cr3) => drop(self.set_cr3(cr3)),
            Event::FlipCr0(bit) => drop(self.set_cr0(bit, self.regs.cr0 & bit == 0)),
            Event::FlipCr4(bit) => drop(self.set_cr4(bit, self.regs.cr4 & bit == 0)),
            Event::FlipEfer(bit) => drop(self.set_efer(bit, self.regs.efer & bit == 0)),
            Event::Pkru(pkru) => drop(self.set_pkru(pkru)),
            Event::Rebuild(mode, variant) => guest::rebuild(self, mode, variant),
            Event::Watch(frame, on) => self.watch(frame, on),
            Event::PageOut(frame) => self.page_out(frame),
            Event::PageIn(frame) => self.mmu.mem().page_in(frame),
            Event::Move(frame) => {
                self.page_out(frame);
                self.mmu.mem().page_in(frame);
            }
            Event::Look(frame) => self.look(frame),
            Event::LogStart(from, to) => {
                let plan = self.mmu.start_dirty_log(Gfn::new(from)..Gfn::new(to));
                self.execute(plan);
                (from..to).for_each(|frame| self.uses[frame as usize].logged = false);
            }
            Event::LogCollect(from, to) => drop(self.collect(from, to)),
            Event::LogStop(from, to) => {
                self.mmu.stop_dirty_log(Gfn::new(from)..Gfn::new(to));
                (from..to).for_each(|frame| self.uses[frame as usize].logged = true);
            }
        }
        self.settle();
    }

    /// Loads registers. Says whether the CPU took them; else nothing has changed.
    fn load(&mut self, new: Regs, load: Load) -> bool {
        let why = match load {
            Load::Cr0 => ControlWrite::Cr0,
            Load::Cr3 => ControlWrite::Cr3,
            Load::Cr4 => ControlWrite::Cr4,
            Load::Efer => ControlWrite::Efer,
            Load::Pkru => ControlWrite::Pkru,
        };
        let before = self.mmu.controls();
        let done = loop {
            match self.mmu.load_controls(controls_of(&new), why) {
                Err(ControlFault::NotResident(gfn)) => self.bring_back(gfn),
                done => break done,
            }
        };
        let Some(regs) = self.regs.load(&self.twin, new, load) else {
            assert_eq!(done, Err(ControlFault::GeneralProtection));
            assert_eq!(self.mmu.controls(), before);
            return false;
        };
        let latched = self.regs.latches(&new, load);
        self.execute(done.expect("no refusal"));
        self.caches.load(&self.regs, &regs, load);
        self.regs = regs;
        if latched {
            self.note(regs.cr3 >> 12, false);
        }
        // While the guest does not page it has no user pages, though ours are.
        self.cpu.smep = regs.mode() != Mode::Off && regs.cr4 & SMEP != 0;
        self.cpu.smap = regs.mode() != Mode::Off && regs.cr4 & SMAP != 0;
        self.settle();
        true
    }

    /// MOV to CR3.
    pub fn set_cr3(&mut self, cr3: u64) -> bool {
        self.load(Regs { cr3, ..self.regs }, Load::Cr3)
    }

    /// MOV to CR0 with a bit set or clear.
    pub fn set_cr0(&mut self, bit: u64, on: bool) -> bool {
        let cr0 = if on { self.regs.cr0 | bit } else { self.regs.cr0 & !bit };
        self.load(Regs { cr0, ..self.regs }, Load::Cr0)
    }

    /// MOV to CR4 with a bit set or clear.
    pub fn set_cr4(&mut self, bit: u64, on: bool) -> bool {
        let cr4 = if on { self.regs.cr4 | bit } else { self.regs.cr4 & !bit };
        self.load(Regs { cr4, ..self.regs }, Load::Cr4)
    }

    /// WRMSR of EFER with a bit set or clear.
    pub fn set_efer(&mut self, bit: u64, on: bool) -> bool {
        let efer = if on { self.regs.efer | bit } else { self.regs.efer & !bit };
        self.load(Regs { efer, ..self.regs }, Load::Efer)
    }

    /// WRPKRU.
    pub fn set_pkru(&mut self, pkru: u32) -> bool {
        self.load(Regs { pkru, ..self.regs }, Load::Pkru)
    }

    /// INVLPG.
    pub fn invlpg(&mut self, gva: u64) {
        let plan = self.mmu.on_invlpg(Gva::new(gva));
        self.execute(plan);
        self.caches.invlpg(gva);
    }

    fn watch(&mut self, frame: u64, on: bool) {
        if on {
            let plan = self.mmu.watch(Gfn::new(frame));
            self.execute(plan);
        } else {
            self.mmu.unwatch(Gfn::new(frame));
        }
    }

    /// The host takes a frame to disk.
    pub fn page_out(&mut self, frame: u64) {
        if Ram::is_memory(frame) && self.mmu.mem().is_resident(frame) {
            let plan = self.mmu.take_frame(Gfn::new(frame));
            self.execute(plan);
            self.mmu.mem().page_out(frame);
        }
    }

    fn bring_back(&mut self, gfn: Gfn) {
        assert!(!self.mmu.mem().is_resident(gfn.raw()), "a resident frame was asked for: {gfn}");
        self.mmu.mem().page_in(gfn.raw());
    }

    /// The host asks for the use of a frame.
    pub fn look(&mut self, frame: u64) {
        let (found, plan) = self.mmu.frame_use(Gfn::new(frame));
        self.execute(plan);
        let known = &mut self.uses[frame as usize];
        assert_eq!((found.accessed, found.written), (known.accessed, known.written), "use of frame {frame:#x}");
        *known = Use { accessed: false, written: false, ..*known };
        // A table out of sync is a table, though writes to it are not caught.
        assert!(found.page_table || !self.mmu.write_kind(Gfn::new(frame)).page_table);
    }

    /// The host collects the dirty log: the frames that were written.
    pub fn collect(&mut self, from: u64, to: u64) -> Vec<u64> {
        let mut found = Vec::new();
        let plan = self.mmu.collect_dirty(Gfn::new(from)..Gfn::new(to), |gfn| found.push(gfn.raw()));
        self.execute(plan);
        let expected: Vec<u64> = (from..to).filter(|&frame| self.uses[frame as usize].logged).collect();
        assert_eq!(found, expected, "dirty frames");
        (from..to).for_each(|frame| self.uses[frame as usize].logged = false);
        found
    }

    fn note(&mut self, frame: u64, write: bool) {
        if let Some(known) = self.uses.get_mut(frame as usize) {
            known.accessed = true;
            known.written |= write;
            known.logged |= write;
        }
    }

    /// Compares memories, audits, and remembers what a guest's CPU might cache now.
    pub fn settle(&mut self) {
        if !self.checking {
            return;
        }
        if let Some(at) = self.mmu.mem().ram.first_difference(&self.twin) {
            let value = |ram: &Ram| ram.read(at & !7, 8).unwrap_or(0);
            panic!("memory differs at {at:#x}: {:#x}, expected {:#x}", value(&self.mmu.mem().ram), value(&self.twin));
        }
        if let Err(error) = self.mmu.audit() {
            panic!("audit: {error}");
        }
        self.observe(&pages(self.regs.mode()));
    }

    /// Remembers what a guest's CPU might cache of these pages now.
    fn observe(&mut self, pages: &[u64]) {
        if self.checking && self.lags() && self.regs.mode() != Mode::Off {
            self.caches.observe(&self.twin, &self.regs, pages);
        }
    }

    /// May the machine use translations that the guest has changed since?
    fn lags(&self) -> bool {
        self.setup.caching || self.setup.policy.sync != SyncPolicy::WriteProtect
    }

    /// A device writes to memory.
    pub fn device(&mut self, at: u64, bytes: &[u8]) {
        if at >> 12 <= ROM {
            self.mmu.mem().page_in(at >> 12);
            self.store(at, bytes);
            let plan = self.mmu.on_write(Gpa::new(at), bytes.len());
            self.execute(plan);
        }
    }

    /// Both memories change.
    fn store(&mut self, at: u64, bytes: &[u8]) {
        self.mmu.mem().ram.write(at, bytes);
        self.twin.write(at, bytes);
        self.note(at >> 12, true);
    }

    /// A write.
    pub fn write(&mut self, gva: u64, who: Who, bytes: &[u8]) -> Verdict {
        self.access(gva, What::Write, who, bytes)
    }

    /// A read.
    pub fn read(&mut self, gva: u64, who: Who) -> Verdict {
        self.access(gva, What::Read, who, &[])
    }

    /// One access of the guest; `bytes` are stored if it is a write. Says how it ended.
    pub fn access(&mut self, gva: u64, what: What, who: Who, bytes: &[u8]) -> Verdict {
        // Each round brings a frame back: no walk needs more than a table for each level, and the page.
        for _ in 0..8 {
            if let Some(verdict) = self.try_access(gva, what, who, bytes) {
                self.settle();
                return verdict;
            }
        }
        panic!("no end of missing frames");
    }

    /// `None` if a frame had to be brought back first.
    fn try_access(&mut self, gva: u64, what: What, who: Who, bytes: &[u8]) -> Option<Verdict> {
        if let Some(pfn) = self.try_cpu(gva, what, who) {
            let frame = self.mmu.mem().gfn_at(pfn).expect("a mapping of a host frame that was taken away");
            let target = frame << 12 | gva & 0xfff;
            let walk = self.regs.access(&self.twin, gva, what, who, false);
            let fresh = walk.verdict == Verdict::At(target) && walk.was_marked();
            let stale = self.lags() && self.caches.permit(&self.regs, gva, what, who, frame);
            assert!(fresh || stale, "{what:?} by {who:?} of {gva:#x} went to {target:#x}, expected {walk:x?}");
            self.perform(target, what, bytes);
            return Some(Verdict::At(target));
        }
        let walk = self.regs.access(&self.twin, gva, what, who, true);
        let (outcome, plan) = self.mmu.on_fault(Fault { gva: Gva::new(gva), access: access_of(what, who) });
        self.execute(plan);
        if let Outcome::NotResident(gfn) = outcome {
            assert!(walk.needs(gfn.raw()), "frame {gfn} for {gva:#x}: {walk:x?}");
            self.bring_back(gfn);
            return None;
        }
        // The CPU may have what the walk has just marked before the write changes what it came from: the translation of this page, and
        // of pages that share its table, which a real CPU may read ahead (SDM 3A 4.10.2.3).
        self.observe(&pages(self.regs.mode()));
        for used in &walk.used {
            self.note(used.at >> 12, used.marked);
        }
        self.compare(gva, (what, who), bytes, (outcome, &walk));
        Some(walk.verdict)
    }

    /// The library's answer to a fault against the reference's.
    fn compare(&mut self, gva: u64, (what, who): (What, Who), bytes: &[u8], (outcome, walk): (Outcome, &Walk)) {
        match (outcome, walk.verdict) {
            (Outcome::Resume, Verdict::At(target)) => {
                let pfn = self.try_cpu(gva, what, who).expect("no second fault");
                assert_eq!(self.mmu.mem().gfn_at(pfn), Some(target >> 12));
                self.perform(target, what, bytes);
            }
            (Outcome::Inject(fault), Verdict::Fault(error)) => {
                assert_eq!((fault.gva, fault.error.bits()), (Gva::new(gva), error), "{what:?} by {who:?}");
            }
            (Outcome::EmulateWrite(gpa), Verdict::At(target)) => {
                assert!(gpa.raw() == target && what == What::Write && target >> 12 < ROM);
                // In ring 1 no entry lets the supervisor, and under SMAP nobody else, write a read-only user page.
                let torn = self.regs.cr0 & WP == 0 && self.regs.cr4 & SMAP != 0 && !self.regs.is_long();
                assert!(torn || !self.mmu.write_kind(gpa.gfn()).is_plain());
                if self.setup.stepping { self.step_over(gva, who, bytes) } else { self.emulate(gva, who, bytes) }
            }
            (Outcome::EmulateFetch(gpa), Verdict::At(target)) => {
                assert!(gpa.raw() == target && what == What::Fetch && self.regs.is_long());
                assert!(self.regs.access(&self.twin, gva, What::Read, who, false).verdict != walk.verdict);
                self.note(target >> 12, false);
            }
            (Outcome::Mmio(gpa), Verdict::At(target)) => {
                assert_eq!(gpa.raw(), target);
                let frame = target >> 12;
                assert!(!Ram::is_memory(frame) || frame == MMIO || frame == ROM && what == What::Write);
            }
            (Outcome::Stop(VmStop::TableOutsideMemory { entry, .. }), Verdict::Lost(at)) => assert_eq!(entry.raw(), at),
            other => panic!("{what:?} by {who:?} of {gva:#x}: {other:x?}"),
        }
    }

    /// The CPU does the access itself.
    fn perform(&mut self, target: u64, what: What, bytes: &[u8]) {
        self.note(target >> 12, false);
        if what == What::Write {
            let kind = self.mmu.write_kind(Gpa::new(target).gfn());
            assert!(kind.is_plain(), "a write to tracked frame {target:#x} went unseen");
            self.store(target, bytes);
        }
    }

    /// The emulator does it.
    fn emulate(&mut self, gva: u64, who: Who, bytes: &[u8]) {
        let (gva, access) = (Gva::new(gva), access_of(What::Write, who));
        let gpa = self.mmu.translate(gva, access).expect("it was allowed");
        assert_eq!(self.mmu.probe(gva, access), Ok(gpa));
        self.store(gpa.raw(), bytes);
        let plan = self.mmu.on_write(gpa, bytes.len());
        self.execute(plan);
    }

    /// The CPU does it while the frame is open.
    fn step_over(&mut self, gva: u64, who: Who, bytes: &[u8]) {
        let (outcome, plan) = self.mmu.open(Fault { gva: Gva::new(gva), access: access_of(What::Write, who) });
        assert_eq!(outcome, Outcome::Resume);
        self.execute(plan);
        let pfn = self.try_cpu(gva, What::Write, who).expect("it is open");
        let frame = self.mmu.mem().gfn_at(pfn).expect("a frame of the guest");
        self.store(frame << 12 | gva & 0xfff, bytes);
        let mut written = Vec::new();
        let plan = self.mmu.close(|gfn| written.push(gfn.raw()));
        assert_eq!(written, [frame]);
        self.execute(plan);
    }

    /// What the library says that an access would do, without doing it, against the reference.
    pub fn probe(&self, gva: u64, what: What, who: Who) {
        let walk = self.regs.access(&self.twin, gva, what, who, false);
        match (self.mmu.probe(Gva::new(gva), access_of(what, who)), walk.verdict) {
            (Ok(gpa), Verdict::At(target)) => assert_eq!(gpa.raw(), target),
            (Err(TranslateError::Fault(fault)), Verdict::Fault(error)) => assert_eq!(fault.error.bits(), error),
            (Err(TranslateError::NotResident(gfn)), _) => assert!(walk.needs(gfn.raw())),
            (Err(TranslateError::Stop(_)), Verdict::Lost(_)) => {}
            other => panic!("{what:?} by {who:?} of {gva:#x}: {other:x?}"),
        }
    }

    /// The entry of this size at an address.
    #[must_use]
    pub fn entry(&self, at: u64, size: u64) -> u64 {
        self.twin.read(at, size).unwrap_or(0)
    }

    /// Both memories have the same at an address.
    pub fn compare_at(&self, at: u64) {
        let ours = self.mmu.mem().ram.read(at, 8);
        assert_eq!(ours, self.twin.read(at, 8), "memory at {at:#x}");
    }

    /// Whatever the shadow lets the CPU do now with an address, the guest's tables allow without another mark.
    pub fn permits_only_what_is_right(&mut self, gva: u64) {
        for what in [What::Read, What::Write, What::Fetch] {
            for who in [Who::Supervisor, Who::SupervisorAc, Who::User] {
                let Some(pfn) = self.try_cpu(gva, what, who) else { continue };
                let target = self.mmu.mem().gfn_at(pfn).expect("a frame of the guest") << 12 | gva & 0xfff;
                let walk = self.regs.access(&self.twin, gva, what, who, false);
                assert!(walk.verdict == Verdict::At(target) && walk.was_marked(), "{what:?} by {who:?}: {walk:x?}");
            }
        }
    }
}
