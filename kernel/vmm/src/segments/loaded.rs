//! What the segment registers hold: the entries of the live tables, or cache slots, under the selectors that the guest believes in.

use gnomon_hw::{SegReg, World};

use super::{Cached, Entry, cache_index, guest_entries, table_of};
use crate::trap::{Emulated, StopReason};
use crate::vcpu::{Descriptor, Selector};
use crate::vm::Vm;

impl Vm {
    pub(super) fn cache_if_loaded(&mut self, reg: SegReg, entry: Entry) {
        let real = Selector(real_selector(&self.world, reg));
        if real.index() == entry.index && table_of(real) == entry.table && !real.is_null() {
            let visible = real.with_rpl(self.cpl());
            self.use_slot(reg, visible, entry.live);
        }
    }

    /// Fills a register's cache slot. The gate refuses nothing that `to_live` makes; the null selector stands for a refusal.
    fn cache_slot(&mut self, reg: SegReg, live: Descriptor) -> Selector {
        if let Some(slot) = self.world.cache_slot_with(reg, live.0) {
            return Selector(slot << 3);
        }
        self.forget_flat();
        Selector(self.world.set_cache_slot(reg, live.0).map_or(0, |index| index << 3))
    }

    /// Runs CS or SS from its cache slot.
    pub(super) fn use_slot(&mut self, reg: SegReg, visible: Selector, live: Descriptor) {
        let rpl = Selector(real_selector(&self.world, reg)).rpl();
        let slot = self.cache_slot(reg, self.cpu_form(reg, live, rpl)).with_rpl(rpl);
        if let Some(place) = self.live.cached.get_mut(cache_index(reg)) {
            *place = Some(Cached { visible, slot });
        }
        set_real_selector(&mut self.world, reg, slot);
    }

    /// The descriptor that the CPU must have for one that is loaded with this RPL.
    pub(super) fn cpu_form(&self, reg: SegReg, live: Descriptor, rpl: u8) -> Descriptor {
        if reg == SegReg::Cs && rpl != 3 { self.code.windowed(live) } else { live }
    }

    /// What CS holds before the code window moves.
    pub(crate) fn code_segment_before_move(&self) -> Option<Descriptor> {
        self.loaded_descriptor(SegReg::Cs)
    }

    /// The code window moved: kernel code segments follow, the one in CS too.
    pub(crate) fn move_code_segments(&mut self, loaded: Option<Descriptor>) {
        for at in 0..self.live.entries.len() {
            if let Some(&entry) = self.live.entries.get(at)
                && entry.live.is_code()
            {
                self.put_live(entry);
            }
        }
        let visible = self.visible_selector(SegReg::Cs);
        let cached = self.live.cached.get(cache_index(SegReg::Cs)).copied().flatten();
        if let (Some(cached), Some(loaded)) = (cached, loaded)
            && cached.slot.index() == Selector(real_selector(&self.world, SegReg::Cs)).index()
        {
            self.use_slot(SegReg::Cs, visible, loaded);
        }
    }

    /// Whether the code that runs is 16-bit code.
    pub(crate) fn code_segment_is_small(&self) -> bool {
        self.loaded_descriptor(SegReg::Cs).is_some_and(|code| !code.is_big())
    }

    /// Loads DS, ES, FS or GS with a descriptor that is not to stay in the live table: a code segment of the guest's, whose live entry
    /// may be moved, or hidden, and what a boot loader leaves. The register keeps it.
    pub(crate) fn load_once(&mut self, reg: SegReg, selector: Selector, raw: Descriptor) -> Emulated<()> {
        let (table, index) = (table_of(selector), selector.index());
        let entry = self.live.entries.iter().find(|entry| entry.index == index && entry.table == table).copied();
        let live = raw.to_live().ok_or(StopReason::MiddleRing)?;
        let refused = |_| StopReason::MiddleRing;
        self.forget_flat();
        self.world.set_descriptor(table, index, live.0).map_err(|_| StopReason::MiddleRing)?;
        let loaded = self.world.load_segment(reg, selector.0).map_err(refused);
        match entry {
            Some(entry) if !entry.suspended => self.put_live(entry),
            _ => self.clear_live(table, index),
        }
        Ok(loaded?)
    }

    /// CS or SS as the guest believes it, RPL included.
    #[must_use]
    #[inline]
    pub(crate) fn visible_selector(&self, reg: SegReg) -> Selector {
        let real = Selector(real_selector(&self.world, reg));
        // Slots lie behind the guest's own entries.
        if real.index() < World::GDT_GUEST_ENTRIES {
            return real.with_rpl(self.cpl());
        }
        match self.live.cached.get(cache_index(reg)).copied().flatten() {
            Some(cached) if cached.slot.index() == real.index() => cached.visible.with_rpl(self.cpl()),
            _ => real.with_rpl(self.cpl()),
        }
    }

    /// Loads CS or SS with a descriptor that was checked already, for code of virtual privilege level `cpl`.
    ///
    /// # Errors
    /// [`StopReason::MiddleRing`] for a descriptor of level 1 or 2; a page fault on the table.
    pub(crate) fn load_stack_or_code(
        &mut self,
        reg: SegReg,
        selector: Selector,
        raw: Descriptor,
        cpl: u8,
    ) -> Emulated<()> {
        if self.world.is_hardware() {
            let _ = raw.to_live().ok_or(StopReason::MiddleRing)?;
            return self.load_into_cpu(reg, selector.with_rpl(cpl), raw);
        }
        self.settle_descriptors();
        self.install(selector, raw)?;
        self.load_fixed(reg, selector, raw, cpl)
    }

    /// Loads CS or SS with a descriptor whatever the guest's table holds, as the fast system calls do. Not of hardware guests.
    ///
    /// # Errors
    /// [`StopReason::MiddleRing`] for a descriptor of level 1 or 2.
    pub(crate) fn load_fixed(&mut self, reg: SegReg, selector: Selector, raw: Descriptor, cpl: u8) -> Emulated<()> {
        let live = raw.to_live().ok_or(StopReason::MiddleRing)?;
        self.settle_descriptors();
        let real = selector.with_rpl(if cpl == 0 { 1 } else { 3 });
        let form = self.cpu_form(reg, live, real.rpl());
        set_real_selector(&mut self.world, reg, real);
        if !self.finds(selector, form) {
            self.load_missing((reg, selector), (live, form));
        }
        Ok(())
    }

    /// The same if the live table has another descriptor, or none.
    #[cold]
    #[inline(never)]
    fn load_missing(&mut self, (reg, selector): (SegReg, Selector), (live, form): (Descriptor, Descriptor)) {
        let real = Selector(real_selector(&self.world, reg));
        self.install_same(selector, live);
        set_real_selector(&mut self.world, reg, real);
        if !self.finds(selector, form) {
            self.use_slot(reg, selector, live);
        }
    }

    /// Forgets all entries: whoever needs an old one loads it again. User code keeps the selectors that it reads in CS and SS.
    #[cold]
    pub(super) fn make_room(&mut self) {
        self.forget_descriptors();
        if self.cpl() == 0 {
            return;
        }
        for reg in [SegReg::Cs, SegReg::Ss] {
            let selector = self.visible_selector(reg);
            let Some(live) = self.loaded_descriptor(reg) else { continue };
            self.install_same(selector, live);
            if self.finds(selector, live) {
                set_real_selector(&mut self.world, reg, selector);
            }
        }
    }

    /// Whether the CPU finds this descriptor for a selector of the guest's.
    #[inline]
    fn finds(&self, selector: Selector, form: Descriptor) -> bool {
        let table = table_of(selector);
        selector.index() < guest_entries(table)
            && Descriptor(self.world.descriptor(table, selector.index())).accessed() == form
    }

    /// Makes the entry of a selector live if the guest's table has this very descriptor, though it was not loaded from there yet: user
    /// code reads the selector, which must not be one of a cache slot.
    fn install_same(&mut self, selector: Selector, live: Descriptor) {
        if let Ok(Some(raw)) = self.read_descriptor(selector)
            && raw.to_live() == Some(live)
        {
            // What the guest's table cannot give, the cache slot does.
            let _ = self.install(selector, raw);
        }
    }

    /// Base address of the segment that a register holds.
    #[must_use]
    pub(crate) fn segment_base(&self, reg: SegReg) -> u32 {
        self.loaded_descriptor(reg).map_or(0, Descriptor::base)
    }

    /// The live descriptor behind a segment register; `None` for a null selector.
    #[must_use]
    pub(crate) fn loaded_descriptor(&self, reg: SegReg) -> Option<Descriptor> {
        match self.world.loaded_descriptor(reg) {
            0 => None,
            raw if reg == SegReg::Cs && self.cpl() == 0 => Some(self.code.unwindowed(Descriptor(raw))),
            raw => Some(Descriptor(raw)),
        }
    }
}

/// The selector that the real register holds.
pub(super) fn real_selector(world: &World, reg: SegReg) -> u16 {
    match reg {
        SegReg::Cs => world.context().cs as u16,
        SegReg::Ss => world.context().ss as u16,
        _ => world.segment(reg),
    }
}

pub(super) fn set_real_selector(world: &mut World, reg: SegReg, selector: Selector) {
    match reg {
        SegReg::Cs => world.context_mut().cs = selector.0.into(),
        SegReg::Ss => world.context_mut().ss = selector.0.into(),
        _ => {}
    }
}
