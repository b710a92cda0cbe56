//! Control register loads and the roots they name. Owns I8 and I11.
//!
//! Every PML4 in the pool is a cached root: a load finds it by its key in the chain of the guest's own root frame. The shadows
//! of its guest tables stay tracked meanwhile, so nothing has to be checked at the switch.
//!
//! Except the PDPT of PAE paging, which is not tracked: the CPU does not look at it between loads. A load latches its four entries,
//! and takes out of the cached root what they no longer name.

use crate::access::Perms;
use crate::addr::{Gva, Level};
use crate::controls::{ControlFault, ControlWrite, Controls, PagingCtx, PagingMode, cr0, cr4};
use crate::counters::Counter;
use crate::event::Observer;
use crate::flush::FlushPlan;
use crate::frames::Uses;
use crate::mem::{GfnKind, GuestMem, TableMem, backing};
use crate::mmu::ShadowMmu;
use crate::path::Path;
use crate::policy::SyncPolicy;
use crate::pool::PageId;
use crate::pte::{Long4, Pae};
use crate::role::Key;
use crate::stop::Trouble;
use crate::view::View;

/// Reserved in a PDPTE of PAE paging, but QEMU's walker sets it as in any entry.
const PDPTE_ACCESSED: u64 = 1 << 5;

/// What the guest's TLB forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// All that is not global: CR3 was loaded, and no other register.
    Cr3,
    /// Everything.
    All,
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// The guest's control registers change to `controls` by a write of `why`.
    ///
    /// The plan empties the TLB if the architecture says so (SDM 3A 4.10.4.1) or if the root changed. Call it for CR3 loads, and
    /// for CR0, CR4, EFER and PKRU writes that may matter to paging; others are harmless and cheap. Then load the
    /// [root](Self::root_for) of the guest's privilege, which may have changed.
    ///
    /// Long mode is entered and left as the CPU does: by CR0.PG with EFER.LME set, CR4.PAE set and CR4.LA57 as it will stay. That the
    /// guest does so from a 32-bit code segment (else #GP) is for the caller to check. A change of PKRU, or of CR4.PKE with another
    /// PKRU than last time, takes time in proportion to the size of the pool.
    ///
    /// # Errors
    /// [`ControlFault`] if the CPU would refuse, or if this build cannot shadow the mode; nothing is changed then.
    pub fn load_controls(&mut self, controls: Controls, why: ControlWrite) -> Result<FlushPlan, ControlFault> {
        let fast = why == ControlWrite::Cr3 && self.root.is_some() && self.only_cr3_differs(&controls);
        if fast && self.ctx.mode == PagingMode::Legacy32 && controls.cr3 >> 32 == 0 {
            self.load_cr3(controls.cr3)
        } else if fast && self.ctx.mode.is_long() {
            self.load_cr3_long(controls.cr3)
        } else {
            self.load_any(&controls, why)
        }
    }

    /// The general case. A function of its own, so that the frequent one needs no room for it.
    #[inline(never)]
    fn load_any(&mut self, controls: &Controls, why: ControlWrite) -> Result<FlushPlan, ControlFault> {
        let controls = controls.settled();
        let old = if self.root.is_some() && why != ControlWrite::Reset { Some(&self.controls) } else { None };
        let was_loaded = old.is_some();
        let mut ctx = PagingCtx::new(controls, old, &self.off)?;
        if ctx.mode == PagingMode::Pae {
            ctx.pdptes = if self.latches(controls, why) { self.load_pdptes(&ctx, 0)? } else { self.ctx.pdptes };
        }
        if ctx.mode == self.ctx.mode {
            // Whom the last access served makes no difference.
            self.ctx.view = ctx.view;
        }
        let changed = ctx != self.ctx || self.root.is_none();
        let flushing = match why {
            ControlWrite::Cr3 | ControlWrite::Reset => true,
            ControlWrite::Cr4 => (controls.cr4 ^ self.controls.cr4) & cr4::FLUSHING != 0,
            ControlWrite::Cr0 | ControlWrite::Efer | ControlWrite::Pkru => false,
        };
        if changed && let Err(trouble) = self.switch_to(&ctx) {
            return Err(ControlFault::Stop(self.stop(trouble)));
        }
        let flush = if was_loaded && why == ControlWrite::Cr3 && self.only_cr3_differs(&controls) {
            Flush::Cr3
        } else {
            Flush::All
        };
        if ctx.smep != self.ctx.smep {
            // The keys of code pages say it, those of the roots that have them do not: each is to be looked at when it is loaded.
            self.window.note_change();
        }
        self.ctx = ctx;
        self.controls = controls;
        self.path = Path::NONE;
        if changed && let Err(trouble) = self.bound_roots() {
            return Err(ControlFault::Stop(self.stop(trouble)));
        }
        if let Err(trouble) = self.check_code_links() {
            self.remember(trouble);
        }
        if changed || flushing {
            self.sync_and_flush(flush)?;
        }
        Ok(self.take_plan())
    }

    /// The guest's control registers are `controls`, and the CPU walks its tables itself (EPT, NPT): only
    /// [`translate`](Self::translate) and [`probe`](Self::probe) follow, no root is made. PDPTEs are read anew each time, as AMD-V
    /// does; those that are no good stay as they were, if the CPU does not load them by this write.
    ///
    /// # Errors
    /// As [`load_controls`](Self::load_controls).
    #[inline]
    pub fn follow_controls(&mut self, controls: Controls, why: ControlWrite) -> Result<(), ControlFault> {
        let controls = controls.settled();
        let mut ctx = PagingCtx::new(controls, None, &self.off)?;
        if ctx.mode == PagingMode::Pae {
            ctx.pdptes = match self.load_pdptes(&ctx, PDPTE_ACCESSED) {
                Ok(entries) => entries,
                Err(_) if !self.latches(controls, why) => self.ctx.pdptes,
                Err(fault) => return Err(fault),
            };
        }
        self.ctx = ctx;
        self.controls = controls;
        Ok(())
    }

    /// The frequent case: a switch of address spaces, in 2-level paging.
    #[inline]
    fn load_cr3(&mut self, cr3: u64) -> Result<FlushPlan, ControlFault> {
        let root = PagingCtx::narrow_root(cr3);
        if root != self.ctx.root {
            let before = core::mem::replace(&mut self.ctx.root, root);
            match self.switch(self.root_key(&self.ctx)) {
                Ok(id) => {
                    self.root = Some(id);
                    if let Err(trouble) = self.bound_roots() {
                        return Err(ControlFault::Stop(self.stop(trouble)));
                    }
                }
                Err(trouble) => {
                    self.ctx.root = before;
                    return Err(ControlFault::Stop(self.stop(trouble)));
                }
            }
        }
        self.controls.cr3 = cr3;
        if let Err(trouble) = self.recheck_code_links() {
            self.remember(trouble);
        }
        self.sync_and_flush(Flush::Cr3)?;
        Ok(self.take_plan())
    }

    /// The TLB forgets, and with it ends what tables out of sync may show.
    #[inline]
    fn sync_and_flush(&mut self, flush: Flush) -> Result<(), ControlFault> {
        let synced = match self.policy.sync {
            SyncPolicy::VirtualTlb if flush == Flush::Cr3 && self.policy.keep_global => self.forget_local(),
            SyncPolicy::VirtualTlb => self.forget_all(),
            _ if !self.unsync.is_empty() => self.sync_all(),
            _ => Ok(()),
        };
        if let Err(trouble) = synced {
            return Err(ControlFault::Stop(self.stop(trouble)));
        }
        self.flush_all();
        Ok(())
    }

    /// The same in long mode.
    #[inline(never)]
    fn load_cr3_long(&mut self, cr3: u64) -> Result<FlushPlan, ControlFault> {
        if cr3 >> (self.ctx.maxphyaddr & 63) != 0 {
            return Err(ControlFault::GeneralProtection);
        }
        let ctx = PagingCtx { root: self.ctx.root_of(cr3), ..self.ctx };
        if ctx.root != self.ctx.root {
            if let Err(trouble) = self.switch_views(ctx) {
                return Err(ControlFault::Stop(self.stop(trouble)));
            }
            self.ctx.root = ctx.root;
            if let Err(trouble) = self.bound_roots() {
                return Err(ControlFault::Stop(self.stop(trouble)));
            }
        }
        self.controls.cr3 = cr3;
        self.sync_and_flush(Flush::Cr3)?;
        Ok(self.take_plan())
    }

    /// The roots of all views of `ctx` become the current ones. What is found for one is pinned before the next is made; a root
    /// that nobody needs any more is pinned once too often rather than once too little.
    fn switch_views(&mut self, mut ctx: PagingCtx) -> Result<(), Trouble> {
        for &view in View::all(&ctx) {
            ctx.view = view;
            let root = Some(self.switch(self.root_key(&ctx))?);
            let [kernel_ac, user] = &mut self.side_roots;
            match view {
                View::Both | View::Kernel => self.root = root,
                View::KernelAc => *kernel_ac = root,
                View::User => *user = root,
            }
        }
        Ok(())
    }

    #[inline]
    fn only_cr3_differs(&self, controls: &Controls) -> bool {
        let Controls { cr0, cr4, efer, pkru, .. } = self.controls;
        controls.cr0 == cr0 && controls.cr4 == cr4 && controls.efer == efer && controls.pkru == pkru
    }

    /// Does the CPU load the PDPTEs by this write, after which it uses PAE paging? (SDM 3A 4.4.1)
    fn latches(&self, controls: Controls, why: ControlWrite) -> bool {
        let old = self.controls;
        let named = match why {
            ControlWrite::Cr3 | ControlWrite::Reset => true,
            ControlWrite::Cr0 => (controls.cr0 ^ old.cr0) & cr0::LATCHING != 0,
            ControlWrite::Cr4 => (controls.cr4 ^ old.cr4) & cr4::LATCHING != 0,
            ControlWrite::Efer | ControlWrite::Pkru => false,
        };
        named || self.ctx.mode != PagingMode::Pae || controls.cr3 != old.cr3
    }

    /// Reads the four PDPTEs without the bits `ignored`. Where no memory is, an empty bus reads as ones, which are reserved.
    fn load_pdptes(&mut self, ctx: &PagingCtx, ignored: u64) -> Result<[u64; 4], ControlFault> {
        let kind = self.frames.find(ctx.root).map(|_| self.mem.kind(ctx.root));
        if kind == Some(GfnKind::NotResident) {
            return Err(ControlFault::NotResident(ctx.root));
        }
        self.counters.add(Counter::PdpteLoad);
        let memory = kind.and_then(backing);
        let mut entries = [0; 4];
        for (number, entry) in (0..4).zip(&mut entries) {
            *entry = memory.and_then(|_| self.mem.read_u64(ctx.pdpte_gpa(number))).unwrap_or(u64::MAX);
            *entry &= !ignored;
            if !Pae::top_is_valid(*entry, ctx.maxphyaddr) {
                return Err(ControlFault::GeneralProtection);
            }
        }
        self.frames.note(ctx.root, Uses::ACCESSED);
        Ok(entries)
    }

    /// Takes out of the cached root of `ctx` the directories that its PDPTEs do not name.
    fn follow_pdptes(&mut self, ctx: &PagingCtx, root: u32) -> Result<(), Trouble> {
        let upper = match self.child(root, 0)? {
            Some(upper) => Some(upper),
            // It may have outlived a root that was given up.
            None => self.find(Key::glue(ctx, Level::L3))?,
        };
        let Some(upper) = upper else { return Ok(()) };
        for slot in 0..4 {
            let Some(child) = self.child(upper, slot)? else { continue };
            let key = self.pool.get(child)?.key;
            let wanted = directory_key(ctx, slot);
            let window = wanted.is_none() && key.role.window();
            if wanted != Some(key) && !window {
                self.counters.add(Counter::PdpteChanged);
                self.zap(upper, slot)?;
            }
        }
        Ok(())
    }

    /// Makes the roots of `ctx` the current ones, whatever the mode.
    #[cold]
    fn switch_to(&mut self, ctx: &PagingCtx) -> Result<(), Trouble> {
        if ctx.pke && ctx.pkru != self.pkru {
            self.obey_keys(ctx.pkru)?;
        }
        if ctx.mode.is_long() {
            self.switch_views(*ctx)?;
            if !ctx.smap {
                self.side_roots = [None, self.root_of_view(View::User)];
            }
            return Ok(());
        }
        let root = self.switch(self.root_key(ctx))?;
        (self.root, self.side_roots) = (Some(root), [None; 2]);
        let follows = ctx.mode == PagingMode::Pae && !self.policy.sync.is_vtlb();
        if follows { self.follow_pdptes(ctx, root.index) } else { Ok(()) }
    }

    /// PKRU changes: every leaf that depends on keys is computed anew at its next use. What the TLB knows must go at once.
    fn obey_keys(&mut self, pkru: u32) -> Result<(), Trouble> {
        self.pkru = pkru;
        for index in 0..self.pool.len() as u32 {
            let page = self.pool.get(index)?;
            let role = page.key.role;
            if page.live && role.pke() && role.is_leaf_table() {
                self.empty(index)?;
            } else if page.live && role.pke() && role.level() == Level::L2 {
                self.zap_large_leaves(index, |_| true)?;
            }
        }
        self.flush_all();
        Ok(())
    }

    #[inline]
    pub(crate) fn root_key(&self, ctx: &PagingCtx) -> Key {
        if self.policy.sync.is_vtlb() {
            Key::place(ctx.view, Level::L4)
        } else if self.frames.find(ctx.root).is_none() {
            Key::void(ctx)
        } else if ctx.mode.is_long() {
            Key::table::<Long4>(ctx, Level::L4, Gva::new(0), (ctx.root, Perms::ALL))
        } else {
            Key::glue(ctx, Level::L4)
        }
    }

    /// Finds or makes the root of a key.
    fn switch(&mut self, key: Key) -> Result<PageId, Trouble> {
        let index = match self.find(key)? {
            Some(index) => {
                self.counters.add(Counter::RootHit);
                self.pool.get_mut(index)?.used = true;
                self.move_to_front(key.gfn, index)?;
                index
            }
            None => {
                self.counters.add(Counter::RootMiss);
                self.make_root(key)?
            }
        };
        Ok(self.pool.id(index)?)
    }

    /// I8: the old root stays pinned until the new one exists. I11: the last gate puts the hypervisor's window into it.
    #[cold]
    fn make_root(&mut self, key: Key) -> Result<u32, Trouble> {
        let mut room = self.reserve(1)?;
        let index = self.make(key, &mut room)?;
        let table = self.pool.get(index)?.pfn;
        match self.tables.make_root(table) {
            Ok(()) => Ok(index),
            Err(_) => Err(Trouble::Refused { page: index, slot: 0 }),
        }
    }
}

/// Which page the entry `slot` of the L3 page of a PAE root must name, if any.
pub(crate) fn directory_key(ctx: &PagingCtx, slot: usize) -> Option<Key> {
    let gva = Gva::new((slot as u64) << Level::L3.shift());
    let directory = Pae::directory(ctx.pdpte(gva), ctx.maxphyaddr)?;
    Some(Key::table::<Pae>(ctx, Level::L2, gva, (directory, Perms::ALL)))
}
