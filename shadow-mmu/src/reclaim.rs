//! What the host does with a frame behind the guest's back: take it away, ask whether it was used, log who writes. Owns I13.
//!
//! All of it goes through the reverse map, so it costs as much as the frame has mappings, not as much as there are tables. The
//! guest's own A and D bits say what the *guest* asked of its tables; they are neither read nor changed here. What counts is kept
//! per frame ([`Uses`]), and is exact because rights are withheld until it says so: a frame that does not count as accessed has no
//! leaf, and one that does not count as written has no leaf that grants writes. The first access or write faults, and is noted
//! where it is let through.
//!
//! Nothing is withheld before the first question: all frames begin as accessed and written.

use core::ops::Range;

use crate::addr::Gfn;
use crate::counters::Counter;
use crate::event::Observer;
use crate::flush::FlushPlan;
use crate::frames::Uses;
use crate::links::{NIL, page_of, slot_of};
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::stop::Trouble;

/// What was done to a frame since the last question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameUse {
    /// It was read, written or fetched from, or a walk of this library read or marked a guest table in it. (Not so a walk that ended
    /// in a true fault.)
    pub accessed: bool,
    /// It was written, or A or D was set in a guest table in it.
    pub written: bool,
    /// It is a guest page table with a shadow now: to take it means to make that shadow again soon.
    pub page_table: bool,
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Takes a guest frame away from all its mappings, so that the host may use its memory otherwise or move it.
    ///
    /// The order is: `take_frame`; execute the plan; save what is in the frame; let [`GuestMem::kind`] say
    /// [`NotResident`](crate::GfnKind::NotResident), or another host frame if it only moved. When the guest or a walk needs a frame
    /// that is not resident, [`on_fault`](Self::on_fault) and the others say which. To give it back, let `kind` name the host frame
    /// with the old contents again; nothing has to be called.
    ///
    /// A guest page table in the frame loses its shadow, since nobody could say any more what it should hold; the tables that it
    /// names keep theirs. The root that is loaded stays a page table. Its contents must be the same when it comes back. Watches stay. Do
    /// not take a frame that is [open](Self::open).
    ///
    /// Several frames can be taken with one flush: [join](FlushPlan::join) their plans. A frame that was not accessed since the last
    /// [`frame_use`](Self::frame_use) needs none.
    ///
    /// # Example
    /// Overcommit: find a frame that nobody uses, and take it.
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/example.rs")); }
    /// # use example::{paging_guest, user};
    /// use shadow_mmu::{AccessKind, Gfn, Outcome, Pfn};
    ///
    /// let mut mmu = paging_guest();
    /// assert_eq!(mmu.on_fault(user(0x5000, AccessKind::Write)).0, Outcome::Resume);
    /// let (first, plan) = mmu.frame_use(Gfn::new(5));
    /// assert!(first.written && plan.is_all());
    /// // A while later:
    /// let (used, plan) = mmu.frame_use(Gfn::new(5));
    /// assert!(!used.accessed && plan.is_none());
    /// assert!(mmu.take_frame(Gfn::new(5)).is_none(), "nothing maps it");
    /// // Its contents are on the disk, and its memory is somebody else's.
    /// mmu.mem().places[5].set(None);
    ///
    /// assert_eq!(mmu.on_fault(user(0x5000, AccessKind::Read)).0, Outcome::NotResident(Gfn::new(5)));
    /// mmu.mem().places[5].set(Some(Pfn::new(0x777)));
    /// assert_eq!(mmu.on_fault(user(0x5000, AccessKind::Read)).0, Outcome::Resume);
    /// ```
    pub fn take_frame(&mut self, gfn: Gfn) -> FlushPlan {
        if let Err(trouble) = self.take(gfn) {
            self.remember(trouble);
        }
        self.take_plan()
    }

    fn take(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        let Some(frame) = self.frames.find(gfn) else { return Ok(()) };
        let mapped = frame.uses.contains(Uses::ACCESSED);
        if frame.tables != 0 {
            self.give_up_tables(gfn)?;
        }
        if mapped {
            self.unmap(gfn)?;
            self.flush_all();
        }
        self.counters.add(Counter::FrameTaken);
        Ok(())
    }

    /// Says what was done to a frame since the last call for it, and begins anew: the next access faults, and is noted. Exact,
    /// except that all frames count as accessed and written at first.
    ///
    /// An access by this virtual CPU is noted by itself. Whoever else writes guest memory, an emulator or a device, must report it by
    /// [`on_write`](Self::on_write).
    pub fn frame_use(&mut self, gfn: Gfn) -> (FrameUse, FlushPlan) {
        let found = self.find_use(gfn).unwrap_or_else(|trouble| {
            self.remember(trouble);
            FrameUse::default()
        });
        (found, self.take_plan())
    }

    fn find_use(&mut self, gfn: Gfn) -> Result<FrameUse, Trouble> {
        let Some(frame) = self.frames.find(gfn) else { return Ok(FrameUse::default()) };
        let found = FrameUse {
            accessed: frame.uses.contains(Uses::ACCESSED),
            written: frame.uses.contains(Uses::WRITTEN),
            page_table: frame.tables != 0,
        };
        if found.accessed {
            self.unmap(gfn)?;
            self.frames.get_mut(gfn)?.uses.remove(Uses::ACCESSED | Uses::WRITTEN);
            self.flush_all();
            self.counters.add(Counter::FrameAged);
        }
        Ok(found)
    }

    /// Begins to log which of `frames` are written, by any means that [`frame_use`](Self::frame_use) names.
    ///
    /// Each frame costs one fault at its first write, and no more until the log is [collected](Self::collect_dirty).
    ///
    /// # Example
    /// A snapshot: copy everything while the guest runs, then what it has written meanwhile.
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/example.rs")); }
    /// # use example::{paging_guest, user};
    /// use shadow_mmu::{AccessKind, Gfn, Gpa};
    ///
    /// let mut mmu = paging_guest();
    /// let all = Gfn::new(0)..Gfn::new(16);
    /// let plan = mmu.start_dirty_log(all.clone());
    /// // Execute the plan, then copy all frames. Meanwhile the guest reads page 5, writes page 6, and a device frame 9.
    /// let _ = mmu.on_fault(user(0x5000, AccessKind::Read));
    /// let _ = mmu.on_fault(user(0x6000, AccessKind::Write));
    /// let _ = mmu.on_write(Gpa::new(0x9000), 512);
    ///
    /// let mut dirty = Vec::new();
    /// let plan = mmu.collect_dirty(all.clone(), |gfn| dirty.push(gfn.raw()));
    /// assert_eq!(dirty, [6, 9]);
    /// // Execute the plan, copy these again, and so on, until few are left; stop the guest for the last.
    /// mmu.stop_dirty_log(all);
    /// ```
    pub fn start_dirty_log(&mut self, frames: Range<Gfn>) -> FlushPlan {
        self.collect_dirty(frames, |_| {})
    }

    /// Calls `dirty` for each of `frames` that was written since the log was started or last collected, in ascending order, and begins
    /// anew. Frames outside of `frames` are left as they are: a large guest can be collected in pieces. Frames for which no log was
    /// started count as written, and are logged from now on.
    ///
    /// The contents may be read after the plan has been executed, and before the guest runs again.
    pub fn collect_dirty(&mut self, frames: Range<Gfn>, mut dirty: impl FnMut(Gfn)) -> FlushPlan {
        for gfn in self.known(frames) {
            match self.clean(gfn) {
                Ok(true) => dirty(gfn),
                Ok(false) => {}
                Err(trouble) => self.remember(trouble),
            }
        }
        self.take_plan()
    }

    /// Ends the log for `frames`: nothing is withheld for its sake any more.
    pub fn stop_dirty_log(&mut self, frames: Range<Gfn>) {
        for gfn in self.known(frames) {
            self.frames.note(gfn, Uses::LOGGED);
        }
    }

    /// Those of `frames` that can be memory. I12: however much the caller asks for.
    fn known(&self, frames: Range<Gfn>) -> impl Iterator<Item = Gfn> + use<G, T, O> {
        let end = frames.end.raw().min(self.frames.len());
        (frames.start.raw()..end).map(Gfn::new)
    }

    fn clean(&mut self, gfn: Gfn) -> Result<bool, Trouble> {
        let frame = self.frames.get_mut(gfn)?;
        let uses = frame.uses;
        frame.uses.remove(Uses::LOGGED);
        if !uses.contains(Uses::LOGGED) {
            return Ok(false);
        }
        let stale = frame.stale_epoch == self.epoch;
        if self.revoke_writes(gfn)? != 0 || stale {
            self.flush_all();
        }
        self.counters.add(Counter::FrameCleaned);
        Ok(true)
    }

    /// Clears every leaf that maps a frame.
    pub(crate) fn unmap(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        self.break_up(gfn)?;
        loop {
            let node = self.frames.get(gfn)?.rmap;
            if node == NIL {
                return Ok(());
            }
            self.zap(page_of(node), slot_of(node))?;
        }
    }

    /// Gives up every shadow of a guest table, but the current roots, which become empty and are followed further. I8.
    pub(crate) fn give_up_tables(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        let mut index = self.frames.get(gfn)?.pages;
        while index != NIL {
            let page = self.pool.get(index)?;
            let (next, is_table) = (page.next_same, page.key.role.is_table());
            if is_table && self.is_pinned(index) {
                self.empty(index)?;
            } else if is_table {
                self.zap_page(index)?;
            }
            index = next;
        }
        Ok(())
    }
}
