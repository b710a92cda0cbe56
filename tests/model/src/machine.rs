//! The library beside the reference: every event is done to both, and all that a guest or a host can see is compared. Panics where
//! they differ.
//!
//! It uses the library through its public interface only, as its documentation says.

mod access;
mod code;
mod hosting;

use shadow_mmu::{
    Access, AccessKind, Config, ControlFault, ControlWrite, Controls, FlushPlan, Gfn, Gva, Pfn, Policy, Privilege,
    Root, ShadowMmu, SyncPolicy,
};

use crate::caches::Caches;
use crate::cpu::Cpu;
use crate::event::{Event, reach};
use crate::guest;
use crate::host::{Memory, Tables};
use crate::ram::{FRAMES, Ram};
use crate::reference::{Features, Load, Mode, Regs, SMAP, SMEP, WP, What, Who};

/// The library under test.
pub type Mmu = ShadowMmu<Memory, Tables>;

/// How a machine is built.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Frames for shadow tables.
    pub pool: u64,
    /// The library's switches.
    pub policy: Policy,
    /// The real CPU has a TLB.
    pub caching: bool,
    /// It also fills that with whatever it may, whenever it may.
    pub speculating: bool,
    /// The emulator knows nothing: each caught write is stepped over an opened frame.
    pub stepping: bool,
    /// The guest's kernel runs on shadow code while it is one of 32 bits.
    pub code: bool,
    /// The real CPU keeps the supervisor from reading shadow code, so its window may be where the guest has something.
    pub keys: bool,
    /// What the virtual CPU's CPUID says.
    pub features: Features,
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
    /// The pages that it can reach in its mode.
    reach: (Mode, Vec<u64>),
    /// With whose privilege the guest runs.
    who: Who,
    code: code::Code,
    /// How many watches of each frame events have begun.
    watches: Vec<u32>,
    /// Of these alone it is known what the guest's CPU might cache, if any are named.
    followed: Option<Vec<u64>>,
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
        let Features { width, gib_pages } = setup.features;
        let config = Config::new(Tables::frames(setup.pool), FRAMES);
        let config = Config { policy: setup.policy, maxphyaddr: width as u8, gib_pages, ..config };
        let mmu = ShadowMmu::new(Memory::default(), Tables::new(setup.pool), (), config).expect("a good configuration");
        let mut cpu = Cpu::new(setup.caching);
        cpu.keys = setup.keys;
        let uses = vec![Use { accessed: true, written: true, logged: true }; FRAMES as usize];
        let mut machine = Self {
            mmu,
            twin: Ram::default(),
            regs: Regs::default(),
            cpu,
            caches: Caches::default(),
            uses,
            setup,
            reach: (Mode::Off, reach(Mode::Off)),
            who: Who::Supervisor,
            code: code::Code::default(),
            watches: vec![0; FRAMES as usize],
            followed: None,
            checking: true,
        };
        machine.reset();
        if setup.code {
            machine.use_code();
        }
        machine
    }

    /// The virtual CPU begins, or begins again, with paging off.
    fn reset(&mut self) {
        let first = Regs { cr0: 1 | WP, features: self.setup.features, ..Regs::default() };
        let plan = self.mmu.load_controls(controls_of(&first), ControlWrite::Reset).expect("paging off");
        self.execute(plan);
        self.caches.clear();
        self.regs = first;
        self.take_real_bits();
    }

    /// The registers.
    #[must_use]
    pub fn regs(&self) -> &Regs {
        &self.regs
    }

    fn execute(&mut self, plan: FlushPlan) {
        self.cpu.execute(plan);
    }

    /// What the real CR3 is while the guest runs with a privilege.
    fn root(&self, who: Who) -> Root {
        self.mmu.root_for(access_of(What::Read, who).privilege).expect("control registers were loaded")
    }

    /// The real CPU makes an access, on the root for its privilege. A 64-bit guest's kernel runs in ring 3, too.
    fn try_cpu(&mut self, gva: u64, what: What, who: Who) -> Option<Pfn> {
        self.who = who;
        let root = self.root(who);
        let ring = if self.regs.is_long() { Who::User } else { who };
        self.cpu.access(self.mmu.tables(), root, gva, (what, ring))
    }

    /// Does one event.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Access(gva, what, who, bytes) => {
                self.access(gva, what, who, &bytes);
            }
            Event::Ahead(gva, what, who) => self.ahead(gva, what, who),
            Event::Translate(gva, what, who) => self.translate(gva, what, who),
            Event::Device(at, bytes) => self.device(at, &bytes),
            Event::Reset => self.reset(),
            Event::Invlpg(gva) => self.invlpg(gva),
            Event::Space(number) => drop(self.set_cr3(guest::space(self.regs.mode(), number))),
            Event::Cr3(cr3) => drop(self.set_cr3(cr3)),
            Event::FlipCr0(bit) => drop(self.set_cr0(bit, self.regs.cr0 & bit == 0)),
            Event::FlipCr4(bit) => drop(self.set_cr4(bit, self.regs.cr4 & bit == 0)),
            Event::FlipEfer(bit) => drop(self.set_efer(bit, self.regs.efer & bit == 0)),
            Event::Pkru(pkru) => drop(self.set_pkru(pkru)),
            Event::Rebuild(mode, variant) => guest::rebuild(self, mode, variant),
            Event::Watch(frame, on) => self.watch(frame, on),
            Event::Window(choice) => self.move_window(choice),
            Event::Patches(choice) => self.move_patches(choice),
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
        self.code.unflushed &= load != Load::Cr3;
        self.caches.load(&self.regs, &regs, load);
        self.regs = regs;
        if latched {
            self.note(regs.cr3 >> 12, false);
        }
        self.take_real_bits();
        self.settle();
        true
    }

    /// The real CPU gets the guest's SMEP and SMAP. While the guest does not page it has no user pages, though ours are; and a kernel
    /// that runs on shadow code runs on nothing else.
    fn take_real_bits(&mut self) {
        let pages = self.regs.mode() != Mode::Off;
        self.cpu.smep = pages && self.regs.cr4 & SMEP != 0 || self.runs_on_code();
        self.cpu.smap = pages && self.regs.cr4 & SMAP != 0;
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
            self.observe();
            return;
        }
        if let Some(at) = self.mmu.mem().ram.first_difference(&self.twin) {
            let value = |ram: &Ram| ram.read(at & !7, 8).unwrap_or(0);
            panic!("memory differs at {at:#x}: {:#x}, expected {:#x}", value(&self.mmu.mem().ram), value(&self.twin));
        }
        if let Err(error) = self.mmu.audit() {
            panic!("audit: {error}");
        }
        self.observe();
        if self.setup.speculating {
            let root = self.root(self.who);
            self.reach.1.iter().for_each(|&page| self.cpu.speculate(self.mmu.tables(), root, page));
        }
    }

    /// Remembers what a guest's CPU might cache now of the pages that it can reach.
    fn observe(&mut self) {
        let mode = self.regs.mode();
        if !self.lags() || mode == Mode::Off {
            return;
        }
        if let Some(pages) = &self.followed {
            self.caches.observe(&self.twin, &self.regs, pages);
        } else if self.checking {
            if self.reach.0 != mode {
                self.reach = (mode, reach(mode));
            }
            self.caches.observe(&self.twin, &self.regs, &self.reach.1);
        }
    }

    /// From now on it is known, without other checks too, what the guest's CPU might cache of these pages. Whatever the machine does
    /// elsewhere must be fresh.
    pub fn follow(&mut self, pages: &[u64]) {
        self.followed = Some(pages.to_vec());
    }

    /// May the machine use translations that the guest has changed since?
    fn lags(&self) -> bool {
        self.setup.caching || self.setup.policy.sync != SyncPolicy::WriteProtect
    }

    /// Both memories change.
    fn store(&mut self, at: u64, bytes: &[u8]) {
        self.mmu.mem().ram.write(at, bytes);
        self.twin.write(at, bytes);
        self.code.unflushed = true;
        let last = at + bytes.len().max(1) as u64 - 1;
        (at >> 12..=last >> 12).for_each(|frame| self.note(frame, true));
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
}
