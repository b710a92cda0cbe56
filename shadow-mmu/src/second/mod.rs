//! Second-level tables: EPT for VT-x, NPT for AMD-V, built from the same [`GuestMem`] that the shadow is built from.
//!
//! Here the CPU walks the guest's own tables and then, for every guest-physical address, these. So there is one tree for a VM, and
//! it depends on nothing but where the guest's memory lies. It grows lazily: each *violation* (EPT violation, nested page fault)
//! maps one frame, or one run of 512 frames where the host's memory is contiguous and the switch is on. Tables come from a fixed
//! pool and are given up one after the other when it is used up.
//!
//! The invariants are those of the crate's first page, as far as they apply: **I1** and **I2** for leaves, **I4** for watched
//! frames, **I7** and **I9** for the links between tables, **I10**, **I12**. In addition no entry is ever a misconfiguration:
//! whatever stands in a table, its format's own [`SecondFormat::decode`] can read. [`SecondLevel::audit`] checks all of it.
//!
//! ```
//! use shadow_mmu::second::{Ept, SecondConfig, SecondLevel, SecondOutcome};
//! use shadow_mmu::{AccessKind, CmpxchgError, Gfn, GfnKind, Gpa, GuestMem, Pfn, Refused, Spte, TableMem};
//!
//! /// Two frames of memory, and a device behind them.
//! struct Slots;
//! impl GuestMem for Slots {
//!     fn kind(&self, gfn: Gfn) -> GfnKind {
//!         match gfn.raw() {
//!             0 => GfnKind::Ram(Pfn::new(0x777)),
//!             1 => GfnKind::Rom(Pfn::new(0x333)),
//!             2 => GfnKind::Mmio,
//!             _ => GfnKind::Hole,
//!         }
//!     }
//!     // Contents play no part here.
//!     fn read_u32(&self, _: Gpa) -> Option<u32> { None }
//!     fn read_u64(&self, _: Gpa) -> Option<u64> { None }
//!     fn cmpxchg_u32(&self, _: Gpa, _: u32, _: u32) -> Result<(), CmpxchgError> { Err(CmpxchgError::NoMemory) }
//!     fn cmpxchg_u64(&self, _: Gpa, _: u64, _: u64) -> Result<(), CmpxchgError> { Err(CmpxchgError::NoMemory) }
//! }
//!
//! /// Eight tables at the frames 0..8.
//! struct Tables([[Spte; 512]; 8]);
//! impl TableMem for Tables {
//!     fn load(&self, table: Pfn, index: usize) -> Spte { self.0[table.raw() as usize][index] }
//!     fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
//!         self.0[table.raw() as usize][index] = spte;
//!         Ok(())
//!     }
//!     fn clear(&mut self, table: Pfn) { self.0[table.raw() as usize] = [Spte::ABSENT; 512]; }
//!     fn make_root(&mut self, table: Pfn) -> Result<(), Refused> { Ok(self.clear(table)) }
//!     fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> { Ok(self.clear(table)) }
//! }
//!
//! let config = SecondConfig::new((0..8).map(Pfn::new).collect(), 3);
//! let mut ept = SecondLevel::<Ept, _>::new(Tables([[Spte::ABSENT; 512]; 8]), config)?;
//! // The guest's first access to its memory exits once, and never again.
//! assert_eq!(ept.translate(Gpa::new(0x123)), None);
//! let (outcome, plan) = ept.on_violation(&Slots, Gpa::new(0x123), AccessKind::Write);
//! assert_eq!(outcome, SecondOutcome::Resume);
//! assert!(plan.is_none(), "the TLB remembers nothing of an absent entry");
//! assert_eq!(ept.translate(Gpa::new(0x123)).unwrap().pfn, Pfn::new(0x777));
//! // A device, and a write to ROM, are somebody else's work.
//! assert_eq!(ept.on_violation(&Slots, Gpa::new(0x2000), AccessKind::Read).0, SecondOutcome::Mmio(Gpa::new(0x2000)));
//! assert_eq!(ept.on_violation(&Slots, Gpa::new(0x1000), AccessKind::Write).0, SecondOutcome::RomWrite(Gpa::new(0x1000)));
//! // Taken away, say because the frame goes to the disk: the TLB must forget it.
//! assert!(ept.unmap(Gfn::new(0)).is_all());
//! ept.audit(&Slots).unwrap();
//! # Ok::<(), shadow_mmu::ConfigError>(())
//! ```

mod arena;
mod audit;
mod ept;
mod fill;
mod format;
mod npt;
#[cfg(test)]
pub(crate) mod tests;
mod usage;

pub use ept::Ept;
pub use format::{SecondFormat, SecondLeaf, SecondPte};
pub use npt::Npt;
pub use usage::{Usage, UsageTracking};

use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::access::AccessKind;
use crate::addr::{Gfn, Gpa, Level, Pfn};
use crate::config::ConfigError;
use crate::flush::FlushPlan;
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::outcome::Root;
use crate::second::arena::Arena;
use crate::second::usage::FrameState;
use crate::stop::VmStop;

/// When one entry may map 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Never.
    Never,
    /// Where 512 frames of the guest are neighbours in the host too, aligned alike, all RAM and none watched.
    WhereContiguous,
}

/// What a [`SecondLevel`] is made of.
#[derive(Clone, Debug)]
pub struct SecondConfig {
    /// The frames for tables: the whole pool. At least [`SecondConfig::MIN_FRAMES`].
    pub frames: Vec<Pfn>,
    /// Guest frames `0..guest_frames` may be memory; nothing above is ever mapped.
    pub guest_frames: u64,
    /// The switch for 2 MiB entries. They are not made while usage is tracked.
    pub huge: HugePages,
    /// Whether [`SecondLevel::harvest`] is exact.
    pub usage: UsageTracking,
}

impl SecondConfig {
    /// A root and one path below it.
    pub const MIN_FRAMES: usize = 4;

    /// No huge entries, no tracking.
    #[must_use]
    pub fn new(frames: Vec<Pfn>, guest_frames: u64) -> Self {
        Self { frames, guest_frames, huge: HugePages::Never, usage: UsageTracking::Off }
    }

    /// Tables that map `guest_frames` frames without ever giving one up.
    #[must_use]
    pub fn enough_frames(guest_frames: u64) -> usize {
        let tables = |level| guest_frames.div_ceil(1 << arena::frames_shift(level));
        let all = [Level::L1, Level::L2, Level::L3, Level::L4].map(tables);
        usize::try_from(all.iter().fold(0, |sum: u64, &n| sum.saturating_add(n))).unwrap_or(usize::MAX)
    }
}

/// What to do about a violation.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondOutcome {
    /// Run the guest again at the same instruction.
    Resume,
    /// A device: emulate the instruction.
    Mmio(Gpa),
    /// A write to ROM: emulate the instruction; the write is lost.
    RomWrite(Gpa),
    /// Nothing is there: emulate the instruction; reads give all ones.
    Hole(Gpa),
    /// A write to a watched frame: emulate it, or end the watch.
    WriteProtected(Gpa),
    /// A frame that is [not resident](GfnKind::NotResident): bring it back, then run the guest again.
    NotResident(Gfn),
    /// The VM cannot go on.
    Stop(VmStop),
}

/// Counts of past events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondCounters {
    /// Violations that mapped 4 KiB.
    pub filled: u64,
    /// Violations that mapped 2 MiB.
    pub filled_huge: u64,
    /// Violations that found nothing to do.
    pub spurious: u64,
    /// Entries that were cleared.
    pub zapped: u64,
    /// Tables given up because the pool was used up.
    pub evicted: u64,
    /// Plans to empty the TLB.
    pub flushes: u64,
}

/// Second-level tables of one VM.
///
/// Each returned plan must be executed before the guest runs again. A plan here never names single pages, because neither INVEPT
/// nor AMD-V can drop a single guest-physical address.
#[derive(Debug)]
pub struct SecondLevel<F, T> {
    tables: T,
    arena: Arena,
    root: u32,
    frames: Vec<FrameState>,
    huge: HugePages,
    usage: UsageTracking,
    counters: SecondCounters,
    plan: FlushPlan,
    /// A failure in a call that cannot report it; the next violation does.
    stopped: Option<VmStop>,
    format: PhantomData<F>,
}

impl<F: SecondFormat, T: TableMem> SecondLevel<F, T> {
    /// Makes an empty tree: nothing is mapped. All allocation happens here. `tables` installs no window in
    /// [`make_root`](TableMem::make_root): the hypervisor never runs on these tables.
    ///
    /// # Errors
    /// [`ConfigError`] if a number in `config` is out of range or the gate refuses the root.
    pub fn new(mut tables: T, config: SecondConfig) -> Result<Self, ConfigError> {
        let pages = config.frames.len();
        if pages < SecondConfig::MIN_FRAMES || u32::try_from(pages).is_err() {
            return Err(ConfigError::PoolSize(pages));
        }
        if config.guest_frames == 0 || config.guest_frames >= u64::from(u32::MAX) {
            return Err(ConfigError::GuestFrames(config.guest_frames));
        }
        for &frame in &config.frames {
            tables.clear(frame);
        }
        let mut arena = Arena::new(&config.frames, config.guest_frames);
        let root = arena.take(Gfn::new(0), Level::L4).map_err(|_| ConfigError::PoolSize(pages))?;
        let pfn = arena.get(root).map_err(|_| ConfigError::PoolSize(pages))?.pfn;
        tables.make_root(pfn).map_err(|_| ConfigError::PoolSize(pages))?;
        Ok(Self {
            tables,
            arena,
            root,
            frames: vec![FrameState::default(); config.guest_frames as usize],
            huge: config.huge,
            usage: config.usage,
            counters: SecondCounters::default(),
            plan: FlushPlan::NONE,
            stopped: None,
            format: PhantomData,
        })
    }

    /// What to load into the EPT pointer or nCR3. It never changes.
    #[must_use]
    pub fn root(&self) -> Root {
        Root { table: self.arena.get(self.root).map_or(Pfn::new(0), |table| table.pfn) }
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> &SecondCounters {
        &self.counters
    }

    /// The tables.
    #[must_use]
    pub const fn tables(&self) -> &T {
        &self.tables
    }

    /// The guest's access to `gpa` found no entry, or one without the right. `Resume` means that it succeeds now.
    pub fn on_violation<G: GuestMem>(&mut self, mem: &G, gpa: Gpa, kind: AccessKind) -> (SecondOutcome, FlushPlan) {
        let outcome = self.violation(mem, gpa, kind).unwrap_or_else(SecondOutcome::Stop);
        (outcome, self.take_plan())
    }

    fn violation<G: GuestMem>(&mut self, mem: &G, gpa: Gpa, access: AccessKind) -> Result<SecondOutcome, VmStop> {
        if let Some(stop) = self.stopped {
            return Err(stop);
        }
        let gfn = gpa.gfn();
        let kind = mem.kind(gfn);
        if kind == GfnKind::Mmio {
            return Ok(SecondOutcome::Mmio(gpa));
        }
        let Some(state) = self.state(gfn) else { return Ok(SecondOutcome::Hole(gpa)) };
        let (watched, write) = (state.watches != 0, access == AccessKind::Write);
        let (pfn, rom) = match kind {
            GfnKind::Ram(pfn) => (pfn, false),
            GfnKind::Rom(pfn) => (pfn, true),
            GfnKind::NotResident => return Ok(SecondOutcome::NotResident(gfn)),
            GfnKind::Mmio | GfnKind::Hole => return Ok(SecondOutcome::Hole(gpa)),
        };
        if write && rom {
            return Ok(SecondOutcome::RomWrite(gpa));
        }
        if write && watched {
            return Ok(SecondOutcome::WriteProtected(gpa));
        }
        let writable = !rom && !watched;
        if writable && self.huge == HugePages::WhereContiguous && self.fill_huge(mem, gfn, pfn)? {
            return Ok(SecondOutcome::Resume);
        }
        self.fill(gfn, pfn, (writable, access))?;
        Ok(SecondOutcome::Resume)
    }

    /// Maps a frame before the guest asks for it. Frames that are no memory stay as they are.
    pub fn map<G: GuestMem>(&mut self, mem: &G, gfn: Gfn) -> FlushPlan {
        let (outcome, plan) = self.on_violation(mem, gfn.base(), AccessKind::Read);
        if let SecondOutcome::Stop(stop) = outcome {
            self.stopped.get_or_insert(stop);
        }
        plan
    }

    /// Takes a frame away: the next access is a violation, which asks [`GuestMem::kind`] anew. A huge entry goes as a whole.
    pub fn unmap(&mut self, gfn: Gfn) -> FlushPlan {
        let done = self.zap(gfn);
        self.finish(done)
    }

    /// Catches writes to a frame. Watches are counted.
    pub fn watch(&mut self, gfn: Gfn) -> FlushPlan {
        let Some(state) = self.state_mut(gfn) else { return FlushPlan::NONE };
        state.watches = state.watches.saturating_add(1);
        let done = self.revoke_write(gfn);
        self.finish(done)
    }

    /// Ends one watch. The next write is one more violation, which gives the right back.
    pub fn unwatch(&mut self, gfn: Gfn) {
        if let Some(state) = self.state_mut(gfn) {
            state.watches = state.watches.saturating_sub(1);
        }
    }

    /// Is the frame watched?
    #[must_use]
    pub fn watched(&self, gfn: Gfn) -> bool {
        self.state(gfn).is_some_and(|state| state.watches != 0)
    }

    /// What the CPU would find for `gpa` now: the frame that holds it, and its rights. Reads only.
    #[must_use]
    pub fn translate(&self, gpa: Gpa) -> Option<SecondLeaf> {
        let gfn = gpa.gfn();
        let (table, slot, level) = self.leaf_place(gfn)?;
        match F::decode(self.tables.load(self.arena.get(table).ok()?.pfn, slot), level) {
            SecondPte::Leaf(leaf) if level == Level::L1 => Some(leaf),
            SecondPte::Leaf(leaf) => Some(SecondLeaf { pfn: leaf.pfn.add(gfn.raw() & 511), ..leaf }),
            SecondPte::Absent | SecondPte::Table(_) | SecondPte::Malformed => None,
        }
    }

    fn state(&self, gfn: Gfn) -> Option<&FrameState> {
        self.frames.get(usize::try_from(gfn.raw()).ok()?)
    }

    fn state_mut(&mut self, gfn: Gfn) -> Option<&mut FrameState> {
        self.frames.get_mut(usize::try_from(gfn.raw()).ok()?)
    }

    fn flush_all(&mut self) {
        if !self.plan.is_all() {
            self.plan = FlushPlan::ALL;
            self.counters.flushes = self.counters.flushes.wrapping_add(1);
        }
    }

    fn take_plan(&mut self) -> FlushPlan {
        core::mem::replace(&mut self.plan, FlushPlan::NONE)
    }

    /// The plan of a call that cannot fail; a failure is kept for the next violation.
    fn finish(&mut self, done: Result<(), VmStop>) -> FlushPlan {
        if let Err(stop) = done {
            self.stopped.get_or_insert(stop);
        }
        self.take_plan()
    }
}
