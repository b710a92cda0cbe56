//! The guest wrote a tracked table: every shadow of that table follows, entry by entry.

use crate::access::Perms;
use crate::addr::{Gfn, Gpa, Gva, Level, PAGE_SIZE};
use crate::controls::{PagingCtx, PagingMode};
use crate::counters::Counter;
use crate::event::{Event, Observer};
use crate::flush::FlushPlan;
use crate::frames::{Frame, Uses};
use crate::links::NIL;
use crate::mem::{GuestMem, TableMem, backing};
use crate::mmu::ShadowMmu;
use crate::policy::EagerFill;
use crate::propagate::{Cause, Leaf, Rules, propagate};
use crate::pte::{GuestFormat, GuestPte, Legacy32, Long4, Pae, Spte, frame_index, ratio_shift};
use crate::role::{Key, Role};
use crate::stop::Trouble;
use crate::table::Stored;
use crate::walk::frame_in_leaf;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Guest memory at `gpa`, `len` bytes of one frame or of consecutive ones, was changed by emulation or by a device. Must be called
    /// for tracked tables; for other frames it only notes that they were written, for [`frame_use`](Self::frame_use) and the dirty log.
    ///
    /// Any length and alignment will do: each entry that the bytes touch is read anew as a whole.
    ///
    /// Rights that the write takes away may stay in the TLB until the guest's own INVLPG or CR3 load, as on the CPU, so the plan
    /// is nearly always empty.
    #[inline]
    pub fn on_write(&mut self, gpa: Gpa, len: usize) -> FlushPlan {
        self.on_write_from(gpa, len, None)
    }

    /// As [`on_write`](Self::on_write); `before` is what an entry-sized write replaced, for the trace only.
    #[inline]
    pub fn on_write_from(&mut self, gpa: Gpa, len: usize, before: Option<u64>) -> FlushPlan {
        let room = PAGE_SIZE.wrapping_sub(gpa.offset()) as usize;
        if len > room {
            return self.on_long_write(gpa, (room, len), before);
        }
        let gfn = gpa.gfn();
        self.frames.note(gfn, Uses::WRITE);
        if self.frames.find(gfn).is_some_and(Frame::followed)
            && len != 0
            && let Err(trouble) = self.follow_write(gpa, len, before)
        {
            self.remember(trouble);
        }
        self.take_plan()
    }

    /// A write across a frame border: each frame by itself.
    #[cold]
    fn on_long_write(&mut self, mut gpa: Gpa, (mut room, mut len): (usize, usize), before: Option<u64>) -> FlushPlan {
        let mut plan = FlushPlan::NONE;
        // Behind the guest's memory there is nothing to follow: a write takes no longer for being said to be longer (I12).
        let memory = self.frames.len().saturating_mul(PAGE_SIZE);
        len = len.min(usize::try_from(memory.saturating_sub(gpa.raw())).unwrap_or(usize::MAX));
        while len != 0 {
            let part = len.min(room);
            plan = plan.join(self.on_write_from(gpa, part, before));
            gpa = gpa.add(part as u64);
            len = len.saturating_sub(part);
            room = PAGE_SIZE as usize;
        }
        plan
    }

    pub(crate) fn follow_write(&mut self, gpa: Gpa, len: usize, before: Option<u64>) -> Result<(), Trouble> {
        let gfn = gpa.gfn();
        let odd = len < 4 || gpa.offset() & 3 != 0;
        if odd && self.policy.reuse_detection {
            return self.unshadow(gfn);
        }
        let first = gpa.offset();
        let last = first.saturating_add(len as u64).min(PAGE_SIZE).wrapping_sub(1);
        let mut reported = false;
        self.took_right = false;
        let mut index = self.frames.get(gfn)?.pages;
        while index != NIL {
            let page = self.pool.get(index)?;
            let (next, role, orphan) = (page.next_same, page.key.role, page.parents == NIL && !page.key.role.is_root());
            if role.is_table() {
                if !reported {
                    reported = true;
                    self.report_write(role, gpa, before);
                }
                if orphan && self.policy.reuse_detection {
                    // Nothing leads to it any more: cheaper to make it again than to follow.
                    self.counters.add(Counter::TableReused);
                    self.zap_page(index)?;
                } else {
                    match role.format() {
                        PagingMode::Legacy32 => self.follow_in::<Legacy32>(index, role, gfn, (first, last))?,
                        _ => self.follow_wide(index, role, gfn, (first, last))?,
                    }
                }
            }
            index = next;
        }
        if self.policy.flood | self.policy.teardown != 0 { self.count_burst(gfn) } else { Ok(()) }
    }

    #[inline]
    fn report_write(&mut self, role: Role, gpa: Gpa, before: Option<u64>) {
        self.counters.add(Counter::GpteWrite);
        let (entry, after) = match role.format() {
            PagingMode::Legacy32 | PagingMode::Off => {
                (Gpa::new(gpa.raw() & !3), self.mem.read_u32(Gpa::new(gpa.raw() & !3)).map(u64::from))
            }
            PagingMode::Pae | PagingMode::Long4 | PagingMode::Long5 => {
                (Gpa::new(gpa.raw() & !7), self.mem.read_u64(Gpa::new(gpa.raw() & !7)))
            }
        };
        let after = after.unwrap_or(0);
        self.observer.event(Event::PtWrite { level: role.level(), entry, before, after });
    }

    /// The formats with entries of 8 bytes. A function of its own: in one body with the other format both would be slower.
    #[inline(never)]
    fn follow_wide(&mut self, page: u32, role: Role, gfn: Gfn, bytes: (u64, u64)) -> Result<(), Trouble> {
        match role.format() {
            PagingMode::Off | PagingMode::Legacy32 => Ok(()),
            PagingMode::Pae => self.follow_in::<Pae>(page, role, gfn, bytes),
            PagingMode::Long5 if role.fold() => self.follow_fold(page, Key { gfn, role }, bytes),
            PagingMode::Long5 if role.is_root() => self.follow_pml5(page, Key { gfn, role }, bytes),
            // Below their roots the two are alike.
            PagingMode::Long4 | PagingMode::Long5 => self.follow_in::<Long4>(page, role, gfn, bytes),
        }
    }

    /// Follows the entries that the bytes `first..=last` of the table touch, in one shadow page of it.
    #[inline]
    fn follow_in<F: GuestFormat>(
        &mut self,
        page: u32,
        role: Role,
        gfn: Gfn,
        (first, last): (u64, u64),
    ) -> Result<(), Trouble> {
        if role.code() {
            return self.follow_code::<F>(page, (first, last));
        }
        if !role.is_leaf_table() {
            return self.follow_upper::<F>(page, role, gfn, (first, last));
        }
        for index in first >> F::ENTRY_SHIFT..=last >> F::ENTRY_SHIFT {
            if index >> 9 == u64::from(role.quadrant()) {
                let entry = gfn.base().add(index << F::ENTRY_SHIFT);
                self.follow_leaf::<F>((page, (index & 511) as usize), role, entry)?;
            }
        }
        Ok(())
    }

    /// The same in a table above the leaves, where one guest entry may be several shadow entries.
    #[inline(never)]
    fn follow_upper<F: GuestFormat>(
        &mut self,
        page: u32,
        role: Role,
        gfn: Gfn,
        (first, last): (u64, u64),
    ) -> Result<(), Trouble> {
        self.window.note_directory_write::<F>(role.level(), (first, last));
        let ratio = ratio_shift::<F>(role.level());
        for index in first >> F::ENTRY_SHIFT..=last >> F::ENTRY_SHIFT {
            let slots = index << ratio;
            if slots >> 9 != u64::from(role.quadrant()) {
                continue;
            }
            let entry = gfn.base().add(index << F::ENTRY_SHIFT);
            let slot = (slots & 511) as usize;
            for slot in slot..slot.saturating_add(1 << ratio) {
                if self.policy.mark_absent {
                    self.forget_gap((page, slot))?;
                }
                self.follow_table::<F>((page, slot), role, entry)?;
                if self.policy.mark_absent {
                    self.note_gap::<F>((page, slot))?;
                }
            }
        }
        Ok(())
    }

    /// An entry of a leaf table: the shadow entry is updated in place, made, or cleared.
    #[inline]
    pub(crate) fn follow_leaf<F: GuestFormat>(
        &mut self,
        place: (u32, usize),
        role: Role,
        entry: Gpa,
    ) -> Result<(), Trouble> {
        if self.policy.mark_absent {
            return self.follow_leaf_or_gap::<F>(place, role, entry);
        }
        self.follow_present::<F>(place, role, entry)
    }

    #[cold]
    fn follow_leaf_or_gap<F: GuestFormat>(
        &mut self,
        place: (u32, usize),
        role: Role,
        entry: Gpa,
    ) -> Result<(), Trouble> {
        self.forget_gap(place)?;
        self.follow_present::<F>(place, role, entry)?;
        self.note_gap::<F>(place)
    }

    /// The same without gaps.
    #[inline]
    fn follow_present<F: GuestFormat>(
        &mut self,
        (page, slot): (u32, usize),
        role: Role,
        entry: Gpa,
    ) -> Result<(), Trouble> {
        let present = self.pool.get(page)?.has(slot);
        if !present && self.policy.eager_fill == EagerFill::Never {
            return Ok(());
        }
        if let Some(raw) = F::read(&self.mem, entry)
            && let GuestPte::Leaf { gfn, perms, accessed: true, dirty, .. } =
                F::decode(raw, Level::L1, &role.ctx(&self.ctx))
            && let Some(spte) = self.unasked_leaf(gfn, (perms & role.perms(), dirty), Rules::of::<F>(role, self.pkru))
        {
            if F::SPLIT && !spte.present() {
                self.took_right |= present;
                return if present { self.zap(page, slot) } else { Ok(()) };
            }
            let stored = self.set_leaf((page, slot), gfn, spte, Gva::new(0))?;
            match stored {
                Stored::New => self.counters.add(Counter::SpteEager),
                Stored::Changed => self.counters.add(Counter::SpteUpdated),
                Stored::Weaker => {
                    self.took_right = true;
                    self.counters.add(Counter::SpteUpdated);
                }
                Stored::Same => {}
            }
            return Ok(());
        }
        if !present {
            return Ok(());
        }
        self.took_right = true;
        self.zap(page, slot)
    }

    /// The entry for a page that has A set, though nobody asks for it now; if it may be mapped at all.
    #[inline]
    pub(crate) fn unasked_leaf(&self, gfn: Gfn, (perms, dirty): (Perms, bool), rules: Rules) -> Option<Spte> {
        let frame = self.frames.find(gfn).filter(|frame| frame.may_map())?;
        let (pfn, rom) = backing(self.mem.kind(gfn))?;
        let writable_frame = !rom && frame.may_write();
        let leaf = Leaf { pfn, perms, accessed: true, dirty, writable_frame, rules };
        Some(propagate(leaf, Cause::GpteWrite))
    }

    /// An entry of an upper table: the link stays if it still is the right one, else it goes and the next access links anew.
    #[inline]
    fn follow_table<F: GuestFormat>(
        &mut self,
        (page, slot): (u32, usize),
        role: Role,
        entry: Gpa,
    ) -> Result<(), Trouble> {
        if !self.pool.get(page)?.has(slot) {
            return Ok(());
        }
        let ctx = role.ctx(&self.ctx);
        let gva = frame_index(role.level(), role.quadrant(), slot);
        let raw = F::read(&self.mem, entry).unwrap_or(0);
        let pte = F::decode(raw, role.level(), &ctx);
        let Some(child) = self.child(page, slot)? else { return self.follow_huge::<F>((page, slot), role, pte) };
        let wanted = child_key::<F>(&ctx, role, gva, pte);
        if wanted == Some(self.pool.get(child)?.key) { Ok(()) } else { self.zap(page, slot) }
    }
}

/// Which page an upper entry of a table with `role` must name, if any.
#[inline]
pub(crate) fn child_key<F: GuestFormat>(ctx: &PagingCtx, role: Role, gva: Gva, pte: GuestPte) -> Option<Key> {
    let below = role.level().down()?;
    match pte {
        GuestPte::Table { gfn, perms, accessed: true } => {
            Some(Key::table::<F>(ctx, below, gva, (gfn, role.perms() & perms)))
        }
        GuestPte::Leaf { gfn, perms, accessed: true, dirty, .. } => {
            let frame = frame_in_leaf::<F>(gfn, role.level(), gva);
            Some(Key::direct(ctx, below, frame, (role.perms() & perms, dirty)))
        }
        _ => None,
    }
}
