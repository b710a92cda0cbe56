//! The machine under test beside its twin: every step is done on both and compared.

use std::collections::{HashMap, HashSet};

use super::cpu::Cpu;
use super::memory::{GUEST_FRAMES, Memory, Tables, gfn_of, table_frames};
use super::reference::{self, Cached, Mode, Next, Partial, State, Verdict};
use crate::{
    Access, AccessKind, Config, ControlFault, ControlWrite, Controls, Fault, FlushPlan, Gva, Outcome, Policy,
    Privilege, ShadowMmu, SyncPolicy, VmStop, cr0, cr4, efer,
};

pub(super) type Mmu = ShadowMmu<Memory, Tables, ()>;

/// How a machine is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) pool: u64,
    pub(super) policy: Policy,
    /// The CPU has a TLB.
    pub(super) caching: bool,
    /// The emulator knows nothing: each caught write is stepped over an opened frame.
    pub(super) stepping: bool,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) mmu: Mmu,
    pub(super) twin: Memory,
    pub(super) controls: Controls,
    state: State,
    cpu: Cpu,
    stepping: bool,
    /// Something in the machine may remember a translation: a TLB, or tables out of sync.
    remembers: bool,
    /// Of the last access: its view's root is loaded.
    privilege: Privilege,
    /// Compare and audit after each step.
    pub(super) checking: bool,
    /// Pages whose cached translations are followed.
    pub(super) pages: Vec<u64>,
    /// What a TLB of the guest's own CPU may hold, by page.
    permitted: HashMap<u64, HashSet<Cached>>,
    /// What its paging-structure caches may hold, by the level of the entry and the address bits that lead to it.
    upper: HashMap<(u32, u64), HashSet<Partial>>,
}

pub(super) const SUPERVISOR: Privilege = Privilege::Supervisor;
pub(super) const USER: Privilege = Privilege::User;

pub(super) fn new_mmu(setup: Setup) -> Mmu {
    let frames = table_frames(setup.pool);
    let tables = Tables::new(&frames);
    let config = Config { policy: setup.policy, ..Config::new(frames, GUEST_FRAMES) };
    ShadowMmu::new(Memory::new(), tables, (), config).expect("a good configuration")
}

impl Machine {
    pub(super) fn new(setup: Setup, pages: Vec<u64>) -> Self {
        let mut machine = Self {
            mmu: new_mmu(setup),
            twin: Memory::new(),
            controls: Controls::default(),
            state: State::default(),
            cpu: Cpu::new(setup.caching),
            stepping: setup.stepping,
            remembers: setup.caching || setup.policy.sync != SyncPolicy::WriteProtect,
            privilege: SUPERVISOR,
            checking: true,
            pages,
            permitted: HashMap::new(),
            upper: HashMap::new(),
        };
        machine.load(Controls { cr0: cr0::PE | cr0::WP, ..Controls::default() }, ControlWrite::Reset);
        machine
    }

    /// The guest goes on with the privilege it had.
    pub(super) fn execute(&mut self, plan: FlushPlan) {
        self.cpu.execute(self.mmu.root_for(self.privilege), plan);
    }

    /// The guest goes on with this privilege. Whatever the library returned before was executed.
    fn enter(&mut self, privilege: Privilege) {
        self.privilege = privilege;
        self.execute(FlushPlan::none());
    }

    /// The access as the real CPU makes it: all of a 64-bit guest runs in ring 3.
    fn real(&self, access: Access) -> Access {
        if self.state.long() { access.with_privilege(USER) } else { access }
    }

    /// Loads control registers. Says whether the CPU took them; else nothing has changed.
    pub(super) fn load(&mut self, controls: Controls, why: ControlWrite) -> bool {
        let root = self.mmu.root();
        let done = self.mmu.load_controls(controls, why);
        let Some(state) = self.state.load(&self.twin, controls, why) else {
            assert_eq!(
                (done, self.mmu.controls(), self.mmu.root()),
                (Err(ControlFault::GeneralProtection), self.state.controls, root)
            );
            self.settle();
            return false;
        };
        self.execute(done.expect("no refusal"));
        // CD empties no TLB, not even where the load of PDPTEs that goes with it finds others; nor does what means nothing in this
        // mode, nor PKRU.
        let flushes = matches!(why, ControlWrite::Cr4 | ControlWrite::Reset);
        if why == ControlWrite::Cr3 {
            let kept = state.controls.cr4 & cr4::PGE != 0;
            self.permitted.values_mut().for_each(|set| set.retain(|cached| kept && cached.global));
            self.upper.clear();
        } else if flushes || !state.translates_as(&self.state) {
            self.permitted.clear();
            self.upper.clear();
        }
        self.controls = state.controls;
        self.state = state;
        assert_eq!(self.mmu.controls(), state.controls);
        // While the guest does not page it has no user pages, though ours are. What of them is in the views of a 64-bit guest?
        self.cpu.smep = state.smep() && !state.long();
        self.cpu.smap = state.smap() && !state.long();
        self.settle();
        true
    }

    pub(super) fn set_cr3(&mut self, frame: u64) -> bool {
        self.set_cr3_raw(frame << 12)
    }

    pub(super) fn set_cr3_raw(&mut self, cr3: u64) -> bool {
        self.load(Controls { cr3, ..self.controls }, ControlWrite::Cr3)
    }

    pub(super) fn set_cr0(&mut self, bit: u64, on: bool) -> bool {
        let cr0 = if on { self.controls.cr0 | bit } else { self.controls.cr0 & !bit };
        self.load(Controls { cr0, ..self.controls }, ControlWrite::Cr0)
    }

    pub(super) fn flip_cr0(&mut self, bit: u64) -> bool {
        self.set_cr0(bit, self.controls.cr0 & bit == 0)
    }

    pub(super) fn flip_cr4(&mut self, bit: u64) -> bool {
        self.load(Controls { cr4: self.controls.cr4 ^ bit, ..self.controls }, ControlWrite::Cr4)
    }

    pub(super) fn flip_efer(&mut self, bit: u64) -> bool {
        self.load(Controls { efer: self.controls.efer ^ bit, ..self.controls }, ControlWrite::Efer)
    }

    pub(super) fn flip_nxe(&mut self) -> bool {
        self.flip_efer(efer::NXE)
    }

    pub(super) fn set_pkru(&mut self, pkru: u32) {
        self.load(Controls { pkru, ..self.controls }, ControlWrite::Pkru);
    }

    /// How the guest pages.
    pub(super) fn mode(&self) -> Mode {
        self.state.mode()
    }

    pub(super) fn invlpg(&mut self, gva: u64) {
        let plan = self.mmu.on_invlpg(Gva::new(gva));
        self.execute(plan);
        for (page, set) in &mut self.permitted {
            set.retain(|cached| *page << 12 >> cached.size != gva >> cached.size);
        }
        self.upper.clear();
        self.settle();
    }

    pub(super) fn watch(&mut self, frame: u64, on: bool) {
        if on {
            let plan = self.mmu.watch(crate::Gfn::new(frame));
            self.execute(plan);
        } else {
            self.mmu.unwatch(crate::Gfn::new(frame));
        }
        self.settle();
    }

    /// Compares memories, audits, and samples.
    pub(super) fn settle(&mut self) {
        if !self.checking {
            return;
        }
        if let Some((at, ours, twins)) = self.mmu.mem().first_difference(&self.twin) {
            panic!("memory differs at {at:#x}: {ours:#x}, expected {twins:#x}");
        }
        if let Err(error) = self.mmu.audit() {
            panic!("audit: {error}");
        }
        self.sample();
    }

    /// Remembers what a guest's CPU might cache now.
    fn sample(&mut self) {
        if self.remembers && self.mode() != Mode::Off {
            for n in 0..self.pages.len() {
                self.remember(self.pages[n] << 12);
            }
        }
    }

    /// What walks to `gva` may leave in the caches of the guest's own CPU, beginning with what is in them.
    fn remember(&mut self, gva: u64) {
        let Some(top) = self.state.top(gva) else { return };
        let mut from = HashSet::from([top]);
        for level in (1..=self.state.levels()).rev() {
            let mut next = HashSet::new();
            for partial in from {
                match self.state.cacheable(&self.twin, gva, level, partial) {
                    Some(Next::Table(partial)) => {
                        next.insert(partial);
                    }
                    Some(Next::Page(cached)) => {
                        self.permitted.entry(gva >> 12).or_default().insert(cached);
                    }
                    None => {}
                }
            }
            let kept = self.upper.entry((level, gva >> self.state.shift(level))).or_default();
            kept.extend(next);
            from = kept.clone();
        }
    }

    fn stale_permits(&self, gva: u64, access: Access, frame: u64) -> bool {
        self.remembers
            && self
                .permitted
                .get(&(gva >> 12))
                .into_iter()
                .flatten()
                .any(|cached| cached.frame == frame && cached.serves(access, &self.state))
    }

    /// One access of the guest; `bytes` are stored if it is a write. Says how it ended.
    pub(super) fn access(&mut self, gva: u64, access: Access, bytes: &[u8]) -> Verdict {
        let verdict = self.try_access(gva, access, bytes);
        self.settle();
        verdict
    }

    fn try_access(&mut self, gva: u64, access: Access, bytes: &[u8]) -> Verdict {
        let address = Gva::new(gva);
        self.enter(access.privilege);
        // The CPU is not asked about an address that no entry of ours can stand for.
        self.cpu.reserved = false;
        let real = self.real(access);
        if self.state.canonical(gva)
            && (!self.state.long() || self.state.host_can(gva))
            && let Some(pfn) = self.cpu.access(self.mmu.tables(), address, real)
        {
            let frame = gfn_of(pfn).expect("a frame of the guest");
            let (verdict, marked) = reference::access(&self.twin, &self.state, gva, access, false);
            let target = frame << 12 | gva & 0xfff;
            let fresh = verdict == Verdict::At(target) && marked;
            assert!(fresh || self.stale_permits(gva, access, frame), "{gva:#x} {access:?}: {target:#x}, {verdict:?}");
            self.perform(target, access, bytes);
            return Verdict::At(target);
        }
        let (expected, _) = reference::access(&self.twin, &self.state, gva, access, true);
        let fault = Fault { gva: address, access };
        if self.cpu.reserved
            && let Some(known) = self.mmu.known_absent(fault)
        {
            assert_eq!((known.gva, Verdict::Fault(known.error.bits())), (address, expected));
            return expected;
        }
        let (outcome, plan) = self.mmu.on_fault(fault);
        self.execute(plan);
        // The walk has set A and D: a CPU may cache that, even if this write changes the entry that allows it.
        self.sample();
        match (outcome, expected) {
            (Outcome::Inject(fault), Verdict::Fault(error)) => {
                assert_eq!((fault.gva, fault.error.bits()), (address, error));
            }
            (Outcome::EmulateWrite(gpa), Verdict::At(target)) => {
                assert!(gpa.raw() == target && access.is_write() && reference::is_ram(target >> 12));
                let past_smap = !self.state.long() && self.state.smap() && !self.state.wp();
                assert!(!self.mmu.write_kind(gpa.gfn()).is_plain() || past_smap);
                if self.stepping {
                    self.step_over(gva, access, bytes);
                } else {
                    self.emulate(gva, access, bytes);
                }
            }
            (Outcome::Mmio(gpa), Verdict::At(target)) => {
                assert_eq!(gpa.raw(), target);
                let frame = target >> 12;
                assert!(!reference::is_memory(frame) || access.is_write() && !reference::is_ram(frame));
            }
            (Outcome::EmulateFetch(gpa), Verdict::At(target)) => {
                assert!(gpa.raw() == target && access.kind == AccessKind::Fetch && self.state.long());
                let read = Access { kind: AccessKind::Read, ..access };
                let (read, _) = reference::access(&self.twin, &self.state, gva, read, false);
                assert!(matches!(read, Verdict::Fault(_)), "else an entry could say it");
            }
            (Outcome::NonCanonical(at), Verdict::NotCanonical) => assert_eq!(at, address),
            (Outcome::Stop(VmStop::InWindow(at) | VmStop::BeyondHost(at)), Verdict::At(_)) => {
                assert!(at == address && self.state.long() && !self.state.host_can(gva));
            }
            (Outcome::Resume, Verdict::At(target)) => {
                let pfn = self.cpu.access(self.mmu.tables(), address, real).expect("no second fault");
                assert_eq!(gfn_of(pfn), Some(target >> 12));
                self.perform(target, access, bytes);
            }
            (Outcome::Stop(_), Verdict::Lost) => {}
            other => panic!("{gva:#x} {access:?}: {other:?}"),
        }
        expected
    }

    /// The CPU does the access itself.
    fn perform(&mut self, target: u64, access: Access, bytes: &[u8]) {
        if access.kind == AccessKind::Write {
            let gpa = crate::Gpa::new(target);
            assert!(self.mmu.write_kind(gpa.gfn()).is_plain(), "I4: a write to a tracked frame went unseen");
            self.mmu.mem().store(gpa, bytes);
            self.twin.store(gpa, bytes);
        }
    }

    /// The emulator does it.
    fn emulate(&mut self, gva: u64, access: Access, bytes: &[u8]) {
        let gpa = self.mmu.translate(Gva::new(gva), access).expect("it was allowed");
        assert_eq!(self.mmu.probe(Gva::new(gva), access), Ok(gpa));
        assert_eq!(self.mmu.frame_behind(Gva::new(gva), access), Some(gpa.gfn()));
        self.mmu.mem().store(gpa, bytes);
        self.twin.store(gpa, bytes);
        if self.mmu.write_kind(gpa.gfn()).page_table {
            let plan = self.mmu.on_write(gpa, bytes.len());
            self.execute(plan);
        }
    }

    /// The CPU does it while the frame is open.
    fn step_over(&mut self, gva: u64, access: Access, bytes: &[u8]) {
        let address = Gva::new(gva);
        let (outcome, plan) = self.mmu.open(Fault { gva: address, access });
        assert_eq!(outcome, Outcome::Resume);
        assert!(self.mmu.is_open());
        self.execute(plan);
        let pfn = self.cpu.access(self.mmu.tables(), address, self.real(access)).expect("open");
        let frame = gfn_of(pfn).expect("a frame of the guest");
        let target = crate::Gpa::new(frame << 12 | gva & 0xfff);
        self.mmu.mem().store(target, bytes);
        self.twin.store(target, bytes);
        let mut written = Vec::new();
        let plan = self.mmu.close(|gfn| written.push(gfn.raw()));
        assert_eq!(written, [frame]);
        assert!(!self.mmu.is_open());
        self.execute(plan);
    }

    pub(super) fn read(&mut self, gva: u64, privilege: Privilege) -> Verdict {
        self.access(gva, Access { kind: AccessKind::Read, privilege }, &[])
    }

    /// Writes the low four bytes of `value`.
    pub(super) fn write(&mut self, gva: u64, privilege: Privilege, value: u64) -> Verdict {
        self.access(gva, Access { kind: AccessKind::Write, privilege }, &(value as u32).to_le_bytes())
    }
}
