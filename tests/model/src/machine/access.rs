//! Accesses of the guest: by the real CPU if the shadow allows them, else as the library says.

use shadow_mmu::{Fault, Gpa, Gva, Outcome, Spte, SyncPolicy, TranslateError, VmStop};

use super::{Machine, access_of};
use crate::ram::{FRAME as PAGE, MMIO, ROM, Ram};
use crate::reference::{SMAP, Verdict, WP, Walk, What, Who};

impl Machine {
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
        let room = PAGE - (gva & (PAGE - 1));
        if bytes.len() as u64 > room && what == What::Write {
            let second = gva.wrapping_add(room) & if self.regs.is_long() { u64::MAX } else { u32::MAX.into() };
            return self.write_across((gva, second), who, bytes.split_at(room as usize));
        }
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
        let supervisor = who != Who::User;
        if supervisor && what == What::Fetch && self.runs_on_code() {
            return self.fetch_code(gva);
        }
        if supervisor && what == What::Read && self.is_in_window(gva) {
            return Some(Verdict::Lost(gva));
        }
        if let Some(target) = self.cpu_target(gva, what, who) {
            self.perform(target, what, bytes);
            return Some(Verdict::At(target));
        }
        let walk = self.regs.access(&self.twin, gva, what, who, true);
        let fault = Fault { gva: Gva::new(gva), access: access_of(what, who) };
        if self.cpu.reserved
            && let Some(known) = self.mmu.known_absent(fault)
        {
            assert_eq!((known.gva, Verdict::Fault(known.error.bits())), (fault.gva, walk.verdict));
            return Some(walk.verdict);
        }
        let (outcome, plan) = self.mmu.on_fault(fault);
        self.execute(plan);
        self.note_walk(&walk);
        if let Outcome::NotResident(gfn) = outcome {
            assert!(walk.needs(gfn.raw()), "frame {gfn} for {gva:#x}: {walk:x?}");
            self.bring_back(gfn);
            return None;
        }
        // The CPU may have what the walk has just marked before the write changes what it came from: the translation of this page, and
        // of pages that share its table, which a real CPU may read ahead (SDM 3A 4.10.2.3).
        self.observe();
        self.compare(gva, (what, who), bytes, (outcome, &walk));
        Some(walk.verdict)
    }

    /// The tables that a walk used, and marked now, though the library may do so only when a missing frame is back.
    pub(super) fn note_walk(&mut self, walk: &Walk) {
        for used in &walk.used {
            self.note(used.at >> 12, used.marked);
        }
    }

    /// Where the real CPU goes with an access, which must be right; `None` if it faults.
    fn cpu_target(&mut self, gva: u64, what: What, who: Who) -> Option<u64> {
        let found = self.try_cpu(gva, what, who);
        if !self.setup.caching {
            let said = self.mmu.shadow_access(Gva::new(gva), access_of(what, who));
            assert_eq!(
                said.map(|hpa| hpa.pfn()).filter(|_| !self.is_hidden(gva, what, who)),
                found,
                "{what:?} by {who:?} of {gva:#x}"
            );
        }
        let pfn = found?;
        let frame = self.mmu.mem().gfn_at(pfn).expect("a mapping of a host frame that was taken away");
        let target = frame << 12 | gva & (PAGE - 1);
        let walk = self.regs.access(&self.twin, gva, what, who, false);
        let fresh = walk.verdict == Verdict::At(target) && walk.was_marked();
        let stale = self.lags() && self.caches.permit(&self.regs, gva, what, who, frame);
        assert!(fresh || stale, "{what:?} by {who:?} of {gva:#x} went to {target:#x}, expected {walk:x?}");
        Some(target)
    }

    /// Does a key of the CPU's, of which the library's answer knows nothing, hide what an access would find?
    fn is_hidden(&self, gva: u64, what: What, who: Who) -> bool {
        let walk = self.mmu.shadow_walk_for(Gva::new(gva), access_of(what, who).privilege);
        let key = walk.last().map_or(0, |leaf| leaf.spte.raw() >> 59 & 0xf);
        self.setup.keys && what != What::Fetch && who != Who::User && key == Spte::UNREADABLE_KEY
    }

    /// A write across a page border: both parts are translated, then both are stored.
    fn write_across(&mut self, (first, second): (u64, u64), who: Who, (head, tail): (&[u8], &[u8])) -> Verdict {
        for gva in [first, second] {
            match self.access(gva, What::Write, who, &[]) {
                Verdict::At(_) => {}
                refused => return refused,
            }
        }
        // What the one needs may take the frame or the shadow of the other away.
        for _ in 0..8 {
            if self.try_write_across([(first, head), (second, tail)], who) {
                self.settle();
                return Verdict::At(first);
            }
        }
        panic!("no end of a write across a page border");
    }

    /// Says whether it came to an end.
    fn try_write_across(&mut self, parts: [(u64, &[u8]); 2], who: Who) -> bool {
        let [first, second] = parts.map(|(gva, _)| self.cpu_target(gva, What::Write, who));
        if let (Some(first), Some(second)) = (first, second)
            && self.cpu_target(parts[0].0, What::Write, who) == Some(first)
        {
            self.perform(first, What::Write, parts[0].1);
            self.perform(second, What::Write, parts[1].1);
            return true;
        }
        let access = access_of(What::Write, who);
        let mut targets = [0; 2];
        for ((gva, _), target) in parts.into_iter().zip(&mut targets) {
            let walk = self.regs.access(&self.twin, gva, What::Write, who, true);
            self.note_walk(&walk);
            match (self.mmu.translate(Gva::new(gva), access), walk.verdict) {
                (Ok(gpa), Verdict::At(at)) => {
                    assert_eq!(gpa.raw(), at);
                    *target = at;
                }
                (Err(TranslateError::NotResident(gfn)), _) => {
                    self.bring_back(gfn);
                    return false;
                }
                (Err(TranslateError::Fault(fault)), Verdict::Fault(error)) => {
                    // The CPU had what the tables no longer say.
                    assert_eq!(fault.error.bits(), error);
                    return true;
                }
                (Err(TranslateError::Stop(_)), Verdict::Lost(_)) => return true,
                other => panic!("{other:x?}"),
            }
        }
        for (target, (_, bytes)) in targets.into_iter().zip(parts) {
            self.device(target, bytes);
        }
        true
    }

    /// The guest is about to make an access: the shadow may be completed for it, but no mark be set, nor any use be noted but that of
    /// tables that a complete walk has read.
    pub fn ahead(&mut self, gva: u64, what: What, who: Who) {
        let walk = self.regs.access(&self.twin, gva, what, who, false);
        let plan = self.mmu.fill_ahead(Fault { gva: Gva::new(gva), access: access_of(what, who) });
        self.execute(plan);
        let followed = self.setup.policy.sync == SyncPolicy::WriteProtect || !self.setup.policy.fill_ahead;
        if !followed && matches!(walk.verdict, Verdict::At(_)) && walk.was_marked() {
            self.note_walk(&walk);
        }
    }

    /// The emulator walks the guest's tables, with all that a walk does to them.
    pub fn translate(&mut self, gva: u64, what: What, who: Who) {
        loop {
            let walk = self.regs.access(&self.twin, gva, what, who, true);
            self.note_walk(&walk);
            match (self.mmu.translate(Gva::new(gva), access_of(what, who)), walk.verdict) {
                (Err(TranslateError::NotResident(gfn)), _) => {
                    assert!(walk.needs(gfn.raw()));
                    self.bring_back(gfn);
                    continue;
                }
                (Ok(gpa), Verdict::At(target)) => assert_eq!(gpa.raw(), target),
                (Err(TranslateError::Fault(fault)), Verdict::Fault(error)) => assert_eq!(fault.error.bits(), error),
                (Err(TranslateError::Stop(_)), Verdict::Lost(_)) => {}
                other => panic!("{what:?} by {who:?} of {gva:#x}: {other:x?}"),
            }
            return;
        }
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
                assert!(gpa.raw() == target && what == What::Write && self.twin.is_ram(target));
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
        self.hide_code(gpa.raw(), bytes.len());
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
        self.hide_code(frame << 12 | gva & 0xfff, bytes.len());
    }

    /// What the library says that an access would do, without doing it, against the reference.
    pub fn probe(&self, gva: u64, what: What, who: Who) {
        let walk = self.regs.access(&self.twin, gva, what, who, false);
        let (at, access) = (Gva::new(gva), access_of(what, who));
        let found = self.mmu.probe(at, access);
        assert_eq!(self.mmu.frame_behind(at, access), found.ok().map(|gpa| gpa.gfn()));
        match (found, walk.verdict) {
            (Ok(gpa), Verdict::At(target)) => assert_eq!(gpa.raw(), target),
            (Err(TranslateError::Fault(fault)), Verdict::Fault(error)) => assert_eq!(fault.error.bits(), error),
            (Err(TranslateError::NotResident(gfn)), _) => assert!(walk.needs(gfn.raw())),
            (Err(TranslateError::Stop(_)), Verdict::Lost(_)) => {}
            other => panic!("{what:?} by {who:?} of {gva:#x}: {other:x?}"),
        }
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
