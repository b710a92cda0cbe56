//! What the host does: it takes frames and brings them back, looks at their use, logs writes, watches, and has devices.

use shadow_mmu::{Gfn, Gpa};

use super::{Machine, Use};
use crate::ram::Ram;

impl Machine {
    pub(super) fn watch(&mut self, frame: u64, on: bool) {
        let held = &mut self.watches[frame as usize];
        if on {
            *held += 1;
            let plan = self.mmu.watch(Gfn::new(frame));
            self.execute(plan);
        } else if *held != 0 {
            // Shadow code has watches of its own.
            *held -= 1;
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

    pub(super) fn bring_back(&mut self, gfn: Gfn) {
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

    /// A device writes to memory, across frame borders, too.
    pub fn device(&mut self, at: u64, bytes: &[u8]) {
        let last = (at + bytes.len().max(1) as u64 - 1) >> 12;
        if Ram::is_memory(at >> 12) && Ram::is_memory(last) {
            (at >> 12..=last).for_each(|frame| self.mmu.mem().page_in(frame));
            self.store(at, bytes);
            let plan = self.mmu.on_write(Gpa::new(at), bytes.len());
            self.execute(plan);
            self.hide_code(at, bytes.len());
        }
    }
}
