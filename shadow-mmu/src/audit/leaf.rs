//! Leaves against what the guest's entry says: I1 to I4, I13. Those of 2 MiB are in `huge`, and their rights here.

use super::{Audit, AuditError, Violation, check};
use crate::access::{Access, AccessKind, Perms, Privilege};
use crate::addr::{Gfn, PAGE_SHIFT, Pfn};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pool::Page;
use crate::propagate::{Cause, Leaf, Rules, propagate};
use crate::pte::{GuestFormat, GuestPte, Legacy32, Long4, Pae, Spte, entry_gpa, frame_index};
use crate::role::Key;
use crate::walk::frame_in_leaf;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// What the guest says of the page that an L1 entry or a large leaf maps: first frame, rights, A, D. It says so in `raw`, or in its
    /// memory now.
    fn guest_leaf(&self, page: &Page, slot: usize, raw: Option<u64>) -> Option<(Gfn, Perms, bool, bool)> {
        let role = page.key.role;
        let place = frame_index(role.level(), role.quadrant(), slot);
        if role.direct() {
            return Some((page.key.gfn.add(place.raw() >> PAGE_SHIFT), role.perms(), true, role.dirty()));
        }
        match self.decoded(page, slot, raw)? {
            GuestPte::Leaf { gfn, perms, accessed, dirty, .. } => {
                let gfn = match role.format() {
                    PagingMode::Legacy32 => frame_in_leaf::<Legacy32>(gfn, role.level(), place),
                    _ => frame_in_leaf::<Long4>(gfn, role.level(), place),
                };
                Some((gfn, perms & role.perms(), accessed, dirty))
            }
            _ => None,
        }
    }

    /// The guest entry that shadow entry `slot` stands for.
    pub(super) fn guest_entry(&self, page: &Page, slot: usize) -> Option<GuestPte> {
        self.decoded(page, slot, None)
    }

    /// The same, from `raw` if it is not what the guest's memory has now.
    fn decoded(&self, page: &Page, slot: usize, raw: Option<u64>) -> Option<GuestPte> {
        match page.key.role.format() {
            PagingMode::Legacy32 => self.decoded_as::<Legacy32>(page.key, slot, raw),
            PagingMode::Pae => self.decoded_as::<Pae>(page.key, slot, raw),
            // Below their roots the two are alike.
            PagingMode::Long4 | PagingMode::Long5 => self.decoded_as::<Long4>(page.key, slot, raw),
            PagingMode::Off => None,
        }
    }

    fn decoded_as<F: GuestFormat>(&self, Key { gfn, role }: Key, slot: usize, raw: Option<u64>) -> Option<GuestPte> {
        let entry = entry_gpa::<F>(gfn, role.level(), frame_index(role.level(), role.quadrant(), slot));
        let raw = raw.or_else(|| F::read(&self.mem, entry))?;
        Some(F::decode(raw, role.level(), &role.ctx(&self.ctx)))
    }

    /// Shadow code: the frame is the caller's, which the last gate checks; the guest's entry must let the supervisor fetch.
    fn audit_code(&self, (page, slot): (&Page, usize), spte: Spte, target: Gfn) -> Audit {
        check(spte.perms() == Perms::new(false, false, true), Violation::CodeRights)?;
        if page.key.role.is_place() {
            let found = spte.is_kept() || page.local || !self.policy.keeps_global();
            return check(found, Violation::CodeUnlisted);
        }
        let Some((gfn, perms, accessed, _)) = self.guest_leaf(page, slot, None) else {
            return check(false, Violation::CodeUnmapped);
        };
        check(gfn == target, Violation::CodeOtherFrame)?;
        check(accessed, Violation::CodeBeforeA)?;
        check(perms.execute(), Violation::CodeForbidden)
    }

    pub(super) fn audit_leaf(&self, (page, slot): (&Page, usize), spte: Spte, target: Gfn) -> Audit {
        if page.key.role.code() {
            return self.audit_code((page, slot), spte, target);
        }
        let (pfn, rom) = match self.mem.kind(target) {
            GfnKind::Ram(pfn) => (pfn, false),
            GfnKind::Rom(pfn) => (pfn, true),
            GfnKind::NotResident => return check(false, Violation::FrameAway),
            GfnKind::Mmio | GfnKind::Hole => return check(false, Violation::NoMemory),
        };
        check(spte.pfn() == pfn, Violation::ForeignFrame)?;
        check(!spte.writable() || !self.frames.tracked(target), Violation::TrackedWritable)?;
        check(!spte.writable() || !rom, Violation::RomWritable)?;
        let frame = self.frames.get(target)?;
        check(frame.may_map(), Violation::NotAccessed)?;
        check(!spte.writable() || frame.may_write(), Violation::NotWritten)?;
        let role = page.key.role;
        let dropped = role.is_place() && self.policy.keeps_global() && !spte.is_kept();
        check(!dropped || page.local, Violation::LeafUnlisted)?;
        if role.is_place() {
            // What the entry grants was right at some time since the last flush; nothing shows when.
            return Ok(());
        }
        let number = if role.is_table() { self.frames.get(page.key.gfn)?.snapshot } else { 0 };
        if number == 0 {
            return self.audit_rights((page, slot), (spte, pfn), target, None);
        }
        // I5: out of sync. The entry was made of what the snapshot has, or of a later value that only the guest knew.
        match self.unsync.remembered(number, (role, slot)) {
            Some(raw) => self
                .audit_rights((page, slot), (spte, pfn), target, Some(raw))
                .map_err(|error| AuditError { invariant: 5, ..error }),
            None => Ok(()),
        }
    }

    /// A leaf grants no more than the guest's entry, which is `raw` or what memory has now.
    pub(super) fn audit_rights(
        &self,
        (page, slot): (&Page, usize),
        (spte, pfn): (Spte, Pfn),
        target: Gfn,
        raw: Option<u64>,
    ) -> Audit {
        let Some((gfn, perms, accessed, dirty)) = self.guest_leaf(page, slot, raw) else {
            return check(false, Violation::UnmappedByGuest);
        };
        check(gfn == target, Violation::OtherFrame)?;
        check(accessed, Violation::LeafBeforeA)?;
        check(!spte.writable() || dirty, Violation::WritableBeforeD)?;
        let leaf = Leaf {
            pfn,
            perms,
            accessed,
            // An entry may be what it was before it lost its W, which was checked above.
            dirty: true,
            writable_frame: true,
            // PKE means nothing in the 32-bit formats.
            rules: Rules::of::<Long4>(page.key.role, self.pkru),
        };
        let supervisor_write = Access { kind: AccessKind::Write, privilege: Privilege::Supervisor };
        let right = [Cause::GpteWrite, Cause::Access(supervisor_write)]
            .map(|cause| propagate(leaf, cause))
            .into_iter()
            .filter(|possible| possible.present())
            .map(|possible| if self.window.guard && !possible.user() { possible.no_execute() } else { possible })
            .map(|possible| if page.key.role.is_leaf_table() { possible } else { possible.large() })
            .any(|possible| spte == possible || spte == possible.read_only());
        check(right, Violation::OtherRights)
    }
}
