//! The façade: one value per virtual CPU's address space.

use alloc::vec::Vec;

use crate::access::{Access, Privilege};
use crate::addr::{Gfn, Gpa, Gva};
use crate::config::{Config, ConfigError};
use crate::controls::{Controls, PagingCtx, PagingMode};
use crate::counters::{Counter, MmuCounters};
use crate::event::{Event, Observer};
use crate::flush::FlushPlan;
use crate::frames::{Frames, NoteWalk};
use crate::huge::Blocks;
use crate::links::Links;
use crate::mem::{GuestMem, TableMem};
use crate::open::{MAX_OPEN, Opened};
use crate::outcome::{Root, TranslateError, WriteKind};
use crate::path::Path;
use crate::policy::{Policy, SyncPolicy};
use crate::pool::{PageId, Pool};
use crate::pte::{Flat, GuestFormat, Legacy32, Long4, Long5, Pae};
use crate::stop::{Broken, Trouble, VmStop};
use crate::sync::UnsyncSet;
use crate::view::{Roots, View};
use crate::walk::{Mark, Walk, WalkError, walk};
use crate::window::Window;

/// How many times a walk begins again when guest entries change under it. I12.
const MAX_REWALKS: usize = 4;

/// Shadow page tables of one VM with one virtual CPU.
///
/// Call order: [`load_controls`](Self::load_controls) first; then faults, writes and flushes as the guest makes them. Each plan
/// must be executed, and [`root`](Self::root) be loaded if it changed, before the guest runs again.
#[derive(Debug)]
pub struct ShadowMmu<G, T, O = ()> {
    pub(crate) mem: G,
    pub(crate) tables: T,
    pub(crate) observer: O,
    pub(crate) policy: Policy,
    pub(crate) controls: Controls,
    pub(crate) ctx: PagingCtx,
    /// The context without paging.
    pub(crate) off: PagingCtx,
    /// The current root: the only one, or that of the kernel's view.
    pub(crate) root: Option<PageId>,
    /// In long mode the current roots of the kernel's view with AC set, and of the user's view.
    pub(crate) side_roots: [Option<PageId>; 2],
    /// PKRU as all leaves obey it that depend on protection keys.
    pub(crate) pkru: u32,
    pub(crate) pool: Pool,
    pub(crate) links: Links,
    pub(crate) frames: Frames,
    /// What large leaves map.
    pub(crate) blocks: Blocks,
    pub(crate) counters: MmuCounters,
    /// Counts plans that empty the whole TLB. What carries the present epoch may still be in the TLB.
    pub(crate) epoch: u32,
    /// Epoch in which a part of a large page was unlinked without a flush.
    pub(crate) splinter_epoch: u32,
    /// Epoch in which a link was last taken away without a flush: the CPU may still go that way.
    pub(crate) unlinked_epoch: u32,
    /// Where the last fault went.
    pub(crate) path: Path,
    /// The plan of the call in progress.
    pub(crate) plan: FlushPlan,
    /// A failure in a call that cannot report it; the next fault does.
    pub(crate) stopped: Option<VmStop>,
    /// Tracked frames that one instruction may write.
    pub(crate) opened: [Option<Opened>; MAX_OPEN],
    /// Tables out of sync.
    pub(crate) unsync: UnsyncSet,
    /// The write that is being followed took a right away.
    pub(crate) took_right: bool,
    /// The cached roots, in no order, if their number is bounded.
    pub(crate) roots: Vec<PageId>,
    /// Counts loads of roots, for the pages' stamps.
    pub(crate) loads: u32,
    /// The highest level of a guest page that was filled in parts since the virtual TLB was emptied.
    pub(crate) large: u8,
    /// The same of global pages, since it was emptied of them.
    pub(crate) large_global: u8,
    /// Pages with leaves that the next CR3 load drops from a virtual TLB that keeps global pages.
    pub(crate) local: Vec<u32>,
    /// Where shadow code is mapped.
    pub(crate) window: Window,
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Makes an empty shadow. All allocation happens here.
    ///
    /// # Errors
    /// [`ConfigError`] if a number in `config` is out of range.
    pub fn new(mem: G, mut tables: T, observer: O, config: Config) -> Result<Self, ConfigError> {
        let pages = config.frames.len();
        if !(Config::MIN_FRAMES..=Config::MAX_FRAMES).contains(&pages) {
            return Err(ConfigError::PoolSize(pages));
        }
        if config.guest_frames == 0 || config.guest_frames >= u64::from(u32::MAX) {
            return Err(ConfigError::GuestFrames(config.guest_frames));
        }
        if !(32..=52).contains(&config.maxphyaddr) {
            return Err(ConfigError::MaxPhyAddr(config.maxphyaddr));
        }
        for &frame in &config.frames {
            tables.clear(frame);
        }
        let off = PagingCtx { gib_pages: config.gib_pages, ..PagingCtx::off(config.maxphyaddr) };
        Ok(Self {
            mem,
            tables,
            observer,
            policy: config.policy,
            controls: Controls::default(),
            ctx: off,
            off,
            root: None,
            side_roots: [None; 2],
            pkru: 0,
            pool: Pool::new(&config.frames),
            links: Links::new(pages),
            frames: Frames::new(config.guest_frames as usize),
            blocks: Blocks::new(if config.policy.huge { config.guest_frames as usize } else { 0 }),
            counters: MmuCounters::new(),
            epoch: 1,
            splinter_epoch: 0,
            unlinked_epoch: 0,
            path: Path::NONE,
            plan: FlushPlan::NONE,
            stopped: None,
            opened: [None; MAX_OPEN],
            unsync: UnsyncSet::new(config.policy.sync.unsync_limit()),
            took_right: false,
            roots: Vec::with_capacity(config.policy.root_places()),
            loads: 0,
            large: 0,
            large_global: 0,
            local: Vec::with_capacity(if config.policy.keeps_global() { pages } else { 0 }),
            window: Window::new(),
        })
    }

    /// Guest memory.
    #[must_use]
    pub const fn mem(&self) -> &G {
        &self.mem
    }

    /// Guest memory. What it says of a frame that is mapped must not change; [`take_frame`](Self::take_frame) unmaps it.
    #[must_use]
    pub const fn mem_mut(&mut self) -> &mut G {
        &mut self.mem
    }

    /// The shadow tables.
    #[must_use]
    pub const fn tables(&self) -> &T {
        &self.tables
    }

    /// The shadow tables. Their entries must not be changed from outside.
    #[must_use]
    pub const fn tables_mut(&mut self) -> &mut T {
        &mut self.tables
    }

    /// The observer.
    #[must_use]
    pub const fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }

    /// The control registers in force, with EFER.LMA as the CPU has it.
    #[must_use]
    pub const fn controls(&self) -> Controls {
        self.controls
    }

    /// The four PDPTEs in force; of meaning in PAE paging only.
    #[must_use]
    pub const fn pdptes(&self) -> [u64; 4] {
        self.ctx.pdptes
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> &MmuCounters {
        &self.counters
    }

    /// What to load into the real CR3 while the guest has a single view, or its kernel runs with EFLAGS.AC clear; `None` before the
    /// first [`load_controls`](Self::load_controls).
    #[must_use]
    #[inline]
    pub fn root(&self) -> Option<Root> {
        let page = self.pool.checked(self.root?)?;
        Some(Root { table: page.pfn })
    }

    /// What to load into the real CR3 while the guest runs with each privilege. Load the right one before the guest runs, also
    /// after SYSCALL, IRET and the like, and after STAC and CLAC. `None` before the first [`load_controls`](Self::load_controls).
    #[must_use]
    pub fn roots(&self) -> Option<Roots> {
        let of = |privilege| self.root_for(privilege);
        let (supervisor, supervisor_ac) = (of(Privilege::Supervisor)?, of(Privilege::SupervisorAc)?);
        Some(Roots { supervisor, supervisor_ac, user: of(Privilege::User)? })
    }

    /// The one of [`roots`](Self::roots) for a privilege.
    #[must_use]
    #[inline]
    pub fn root_for(&self, privilege: Privilege) -> Option<Root> {
        let page = self.pool.checked(self.root_of_view(View::of(&self.ctx, privilege))?)?;
        Some(Root { table: page.pfn })
    }

    /// The current root of a view.
    #[inline]
    pub(crate) fn root_of_view(&self, view: View) -> Option<PageId> {
        let [kernel_ac, user] = self.side_roots;
        match view {
            View::Both | View::Kernel => self.root,
            View::KernelAc => kernel_ac,
            View::User => user,
        }
    }

    /// What a CPU access would translate to, with exact A and D updates in the guest's tables. What stands behind the address is for
    /// [`GuestMem::kind`] to say.
    ///
    /// # Errors
    /// The fault to inject, the frame to bring back, or the reason why the VM cannot go on.
    pub fn translate(&mut self, gva: Gva, access: Access) -> Result<Gpa, TranslateError> {
        for _ in 0..MAX_REWALKS {
            match self.walk(gva, access) {
                Ok(walk) => return Ok(walk.gpa(gva)),
                Err(WalkError::Fault(fault)) => return Err(TranslateError::Fault(fault)),
                Err(WalkError::NotResident(gfn)) => return Err(TranslateError::NotResident(gfn)),
                Err(WalkError::NonCanonical) => return Err(TranslateError::NonCanonical(gva)),
                Err(WalkError::Stop(stop)) => return Err(TranslateError::Stop(stop)),
                Err(WalkError::Retry) => {}
            }
        }
        Err(TranslateError::Stop(VmStop::Internal { invariant: 12 }))
    }

    /// The same without any side effect, for reports and descriptor caches.
    ///
    /// # Errors
    /// As [`translate`](Self::translate).
    pub fn probe(&self, gva: Gva, access: Access) -> Result<Gpa, TranslateError> {
        match self.look(gva, access) {
            Ok(walk) => Ok(walk.gpa(gva)),
            Err(WalkError::Fault(fault)) => Err(TranslateError::Fault(fault)),
            Err(WalkError::NotResident(gfn)) => Err(TranslateError::NotResident(gfn)),
            Err(WalkError::NonCanonical) => Err(TranslateError::NonCanonical(gva)),
            Err(WalkError::Stop(stop)) => Err(TranslateError::Stop(stop)),
            Err(WalkError::Retry) => Err(TranslateError::Stop(VmStop::Internal { invariant: 12 })),
        }
    }

    /// A walk without any effect.
    pub(crate) fn look(&self, gva: Gva, access: Access) -> Result<Walk, WalkError> {
        let gva_access = (gva, access);
        match self.ctx.mode {
            PagingMode::Off => walk::<Flat, G, ()>(&self.mem, &self.ctx, gva_access, Mark::Leave, &mut ()),
            PagingMode::Legacy32 => walk::<Legacy32, G, ()>(&self.mem, &self.ctx, gva_access, Mark::Leave, &mut ()),
            PagingMode::Pae => walk::<Pae, G, ()>(&self.mem, &self.ctx, gva_access, Mark::Leave, &mut ()),
            PagingMode::Long4 => walk::<Long4, G, ()>(&self.mem, &self.ctx, gva_access, Mark::Leave, &mut ()),
            PagingMode::Long5 => walk::<Long5, G, ()>(&self.mem, &self.ctx, gva_access, Mark::Leave, &mut ()),
        }
    }

    fn walk(&mut self, gva: Gva, access: Access) -> Result<Walk, WalkError> {
        match self.ctx.mode {
            PagingMode::Off => self.walk_as::<Flat>(gva, access),
            PagingMode::Legacy32 => self.walk_as::<Legacy32>(gva, access),
            PagingMode::Pae => self.walk_as::<Pae>(gva, access),
            PagingMode::Long4 => self.walk_as::<Long4>(gva, access),
            PagingMode::Long5 => self.walk_as::<Long5>(gva, access),
        }
    }

    /// One walk with all its effects: A and D bits, and the note that its tables were used.
    #[inline(always)] // What it finds stays in registers so.
    pub(crate) fn walk_as<F: GuestFormat>(&mut self, gva: Gva, access: Access) -> Result<Walk, WalkError> {
        let mut noting = NoteWalk { frames: &mut self.frames, observer: &mut self.observer };
        walk::<F, G, _>(&self.mem, &self.ctx, (gva, access), Mark::Set, &mut noting)
    }

    /// Why writes to `gfn` are caught, if they are.
    #[must_use]
    #[inline]
    pub fn write_kind(&self, gfn: Gfn) -> WriteKind {
        match self.frames.find(gfn) {
            Some(frame) => WriteKind { page_table: frame.followed(), watched: frame.watches != 0 },
            None => WriteKind::default(),
        }
    }

    /// INVLPG. The TLB has to forget; of a table out of sync the one entry is brought in step.
    ///
    /// A part of a large page stands in the TLB under its own address, while the guest's INVLPG drops the whole large page: if
    /// such parts were unlinked and may still be there, everything goes. While they are linked they are what the guest's entry
    /// says, and may stay.
    #[inline]
    pub fn on_invlpg(&mut self, gva: Gva) -> FlushPlan {
        self.counters.add(Counter::Invlpg);
        let synced = match self.policy.sync {
            SyncPolicy::VirtualTlb => self.forget_address(gva).and_then(|()| self.forget_code_at(gva)),
            _ if !self.unsync.is_empty() => self.sync_address(gva),
            _ => Ok(()),
        };
        if let Err(trouble) = synced {
            self.remember(trouble);
        }
        let forgets_parts = self.policy.sync.is_vtlb() && self.large != 0;
        if forgets_parts || self.splinter_epoch == self.epoch {
            self.flush_all();
        } else {
            self.counters.add(Counter::FlushPage);
            self.plan = self.plan.join(FlushPlan::page(gva));
            self.observer.event(Event::Flush { page: Some(gva.page()) });
        }
        self.take_plan()
    }

    /// The plan of this call is to empty the TLB.
    pub(crate) fn flush_all(&mut self) {
        if self.plan.is_all() {
            return;
        }
        self.plan = FlushPlan::ALL;
        self.epoch = self.epoch.wrapping_add(1);
        self.counters.add(Counter::FlushAll);
        self.observer.event(Event::Flush { page: None });
    }

    /// The plan gathered by this call.
    #[inline]
    pub(crate) fn take_plan(&mut self) -> FlushPlan {
        if self.window.dirty
            && let Err(trouble) = self.check_code_links()
        {
            self.remember(trouble);
        }
        core::mem::replace(&mut self.plan, FlushPlan::NONE)
    }

    /// Keeps a failure for the next fault.
    #[cold]
    pub(crate) fn remember(&mut self, trouble: Trouble) {
        let stop = self.stop(trouble);
        self.stopped.get_or_insert(stop);
    }

    /// Watches writes to a frame for the caller's own reasons. Watches are counted.
    pub fn watch(&mut self, gfn: Gfn) -> FlushPlan {
        if let Err(trouble) = self.add_watch(gfn) {
            self.remember(trouble);
        }
        self.take_plan()
    }

    fn add_watch(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        if self.frames.find(gfn).is_none() {
            return Ok(());
        }
        if self.frames.get(gfn)?.is_unsync() {
            self.resync(gfn)?;
        }
        let frame = self.frames.get_mut(gfn)?;
        let was = frame.tracked();
        frame.watches = frame.watches.checked_add(1).ok_or(Broken(4))?;
        if was { Ok(()) } else { self.begin_tracking(gfn, None) }
    }

    /// Ends one watch of a frame.
    pub fn unwatch(&mut self, gfn: Gfn) {
        let Ok(frame) = self.frames.get_mut(gfn) else { return };
        if frame.watches == 0 {
            return;
        }
        frame.watches = frame.watches.saturating_sub(1);
        if !frame.tracked() {
            self.observer.event(Event::Untrack { frame: gfn.base() });
        }
    }
}
