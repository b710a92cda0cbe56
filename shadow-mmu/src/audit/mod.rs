//! Checks every invariant over the whole state. Slow, reads only, allocates nothing; the tests run it after every step.
//!
//! What a snapshot cannot show is left to the tests: I10 (that a plan names every loss) needs a history, and of I12 only the
//! bookkeeping of the bounded pool can be seen.

mod huge;
mod leaf;
mod violation;

use core::fmt;

use crate::access::Perms;
use crate::addr::{Gfn, Level};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::fold::is_fold_link;
use crate::frames::Frame;
use crate::huge::block_of;
use crate::links::{NIL, SLOTS, node_of, page_of, slot_of};
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pool::Page;
use crate::pte::{GuestFormat, GuestPte, Legacy32, Long4, Pae, Spte, frame_index};
use crate::role::Key;
use crate::root::directory_key;
use crate::stop::Broken;
use crate::table::WINDOW;
use crate::view::View;
use crate::write::child_key;

pub use violation::Violation;

/// An invariant that does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditError {
    /// 4 for I4 and so on; numbers as in `docs/invariants.md`. It is [`Violation::invariant`], but I5 for what a table out of sync
    /// had when it went, and that of the index for [`Violation::Nowhere`].
    pub invariant: u8,
    /// Which check failed.
    pub violation: Violation,
    /// The guest frame concerned.
    pub gfn: Option<Gfn>,
    /// The shadow page concerned (its number in the pool) and the entry in it.
    pub entry: Option<(u32, usize)>,
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}: {}", self.invariant, self.violation.text())?;
        if let Some(gfn) = self.gfn {
            write!(f, " gfn={gfn}")?;
        }
        if let Some((page, slot)) = self.entry {
            write!(f, " page={page} entry={slot}")?;
        }
        Ok(())
    }
}

impl From<Broken> for AuditError {
    fn from(broken: Broken) -> Self {
        Self { invariant: broken.0, violation: Violation::Nowhere, gfn: None, entry: None }
    }
}

type Audit = Result<(), AuditError>;

fn check(holds: bool, violation: Violation) -> Audit {
    let invariant = violation.invariant();
    if holds { Ok(()) } else { Err(AuditError { invariant, violation, gfn: None, entry: None }) }
}

impl AuditError {
    fn at(self, page: u32, slot: usize) -> Self {
        Self { entry: Some((page, slot)), ..self }
    }

    fn of(self, gfn: Gfn) -> Self {
        Self { gfn: Some(gfn), ..self }
    }
}

/// Entries found from both sides, to be compared.
#[derive(Default)]
struct Census {
    leaves: usize,
    large: usize,
    tables: usize,
    live: usize,
    keyless: usize,
}

/// Pages of one guest frame.
#[derive(Default)]
struct Chain {
    pages: usize,
    tables: usize,
    upper: usize,
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Checks the invariants I1 to I16 over the whole state. While a frame is [open](Self::open), I4 does not hold for it.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn audit(&self) -> Result<(), AuditError> {
        let mut census = Census::default();
        for (index, page) in self.pool.iter() {
            if page.live {
                census.live = census.live.wrapping_add(1);
                census.keyless = census.keyless.wrapping_add(usize::from(!page.key.role.has_key()));
                self.audit_page(index, page, &mut census)?;
            } else {
                self.audit_free(page).map_err(|e| e.at(index, 0))?;
            }
        }
        check(self.pool.lists_are_sound(census.live), Violation::PoolLists)?;
        self.audit_frames(&census)?;
        self.audit_roots()?;
        self.audit_local()?;
        check(self.is_path_right()?, Violation::PathElsewhere)?;
        check(self.plan.is_none(), Violation::PlanLeft)
    }

    /// I15: an entry that is not present is zero, or a gap that tells the truth.
    fn audit_absent(&self, (page, slot): (&Page, usize), spte: Spte) -> Audit {
        if !page.has_gap(slot) {
            return check(spte == Spte::ABSENT, Violation::AbsentNotZero);
        }
        let role = page.key.role;
        check(spte.is_gap() && self.policy.mark_absent, Violation::GapUnwanted)?;
        let followed = role.is_table() && !role.code() && !self.frames.get(page.key.gfn)?.is_unsync();
        check(followed, Violation::GapUnfollowed)?;
        check(self.guest_entry(page, slot) == Some(GuestPte::Absent), Violation::GapLies)
    }

    /// I14: the list of pages with leaves that a CR3 load drops has each of them once.
    fn audit_local(&self) -> Audit {
        let marked = self.pool.iter().filter(|(_, page)| page.local).count();
        let listed = self.local.iter().all(|&index| self.pool.get(index).is_ok_and(|page| page.local));
        check(listed && marked == self.local.len(), Violation::LocalUnlisted)
    }

    fn audit_free(&self, page: &Page) -> Audit {
        check(page.parents == NIL, Violation::FreeNamed)?;
        let empty = (0..SLOTS)
            .all(|slot| !page.has(slot) && !page.has_gap(slot) && self.tables.load(page.pfn, slot) == Spte::ABSENT);
        check(empty, Violation::FreeNotEmpty)
    }

    fn audit_page(&self, index: u32, page: &Page, census: &mut Census) -> Audit {
        let role = page.key.role;
        let absent = role.is_table() && self.mem.kind(page.key.gfn) == GfnKind::NotResident;
        let used = absent && page.first_present().is_some();
        check(!used, Violation::TableAway).map_err(|e| e.of(page.key.gfn))?;
        for slot in 0..SLOTS {
            let at = |e: AuditError| e.at(index, slot).of(page.key.gfn);
            if is_fold_link(role, slot) && page.has(slot) {
                census.tables = census.tables.wrapping_add(1);
                let fold = self.pool.get(self.links.target(node_of(index, slot))?)?;
                let wanted = self.fold_key(page.key, slot);
                check(wanted.is_some(), Violation::FoldUnused).map_err(at)?;
                check(fold.live && wanted == Some(fold.key), Violation::OtherFold).map_err(at)?;
                continue;
            }
            if role.is_root() && WINDOW.contains(&slot) {
                check(!page.has(slot), Violation::WindowUsed).map_err(at)?;
                continue;
            }
            let spte = self.tables.load(page.pfn, slot);
            check(spte.present() == page.has(slot), Violation::BitsDiffer).map_err(at)?;
            if !spte.present() {
                self.audit_absent((page, slot), spte).map_err(at)?;
                continue;
            }
            let target = self.links.target(node_of(index, slot))?;
            if role.level() == Level::L1 {
                census.leaves = census.leaves.wrapping_add(1);
                self.audit_leaf((page, slot), spte, Gfn::new(u64::from(target))).map_err(at)?;
            } else if let Some(first) = block_of(target) {
                census.large = census.large.wrapping_add(1);
                self.audit_large((page, slot), spte, first).map_err(at)?;
            } else {
                census.tables = census.tables.wrapping_add(1);
                let child = self.pool.get(target)?;
                check(child.live && spte == Spte::table(child.pfn), Violation::LinkElsewhere).map_err(at)?;
                self.audit_link((index, page, slot), child).map_err(at)?;
            }
        }
        self.audit_parents(index, page, census)
    }

    /// Every node in the parents of a page is a present entry that points back.
    fn audit_parents(&self, index: u32, page: &Page, census: &mut Census) -> Audit {
        for node in self.links.iter(page.parents) {
            let parent = self.pool.get(page_of(node))?;
            let points_back = parent.live
                && parent.has(slot_of(node))
                && parent.key.role.level() != Level::L1
                && self.links.target(node)? == index;
            check(points_back, Violation::ParentForeign).map_err(|e| e.at(page_of(node), slot_of(node)))?;
            census.tables = census.tables.wrapping_sub(1);
        }
        let two = page.parents != NIL && self.links.next(page.parents)? != NIL;
        check(page.key.role.has_key() || !two, Violation::PlaceShared)?;
        check(!(page.key.role.is_root() && page.parents != NIL), Violation::RootLinked)
    }

    fn audit_link(&self, (index, page, slot): (u32, &Page, usize), child: &Page) -> Audit {
        let role = page.key.role;
        if child.key.role.code() || child.key.role.window() {
            return check(self.audit_window((index, page, slot), child), Violation::CodeMisplaced);
        }
        if role.is_place() {
            let right = Some(child.key) == Key::place_below(role);
            return check(right, Violation::PlaceNamesTable);
        }
        let wanted = if role.is_root() && role.format() == PagingMode::Long5 {
            self.key_through_fold(index, slot)?
        } else if role.glue() && role.format() == PagingMode::Pae && role.level() == Level::L3 {
            self.directory_of(page.key, slot, child.key)
        } else if role.glue() || role.direct() {
            self.key_below(page.key, slot)
        } else {
            let gva = frame_index(role.level(), role.quadrant(), slot);
            self.guest_entry(page, slot).and_then(|pte| match role.format() {
                PagingMode::Legacy32 => child_key::<Legacy32>(&role.ctx(&self.ctx), role, gva, pte),
                PagingMode::Pae => child_key::<Pae>(&role.ctx(&self.ctx), role, gva, pte),
                PagingMode::Long4 | PagingMode::Long5 => child_key::<Long4>(&role.ctx(&self.ctx), role, gva, pte),
                PagingMode::Off => None,
            })
        };
        let Some(wanted) = wanted else { return check(false, Violation::TableUnused) };
        // A walk through another way may have set D in a large page meanwhile; the entry without it grants less.
        let right = wanted == child.key || wanted.without_dirty() == child.key;
        check(right, Violation::OtherTable)
    }

    /// Which page the glue above the directories of PAE paging must name. Of another root than the current one nobody knows which
    /// entries it was made for, nor need know: the load that makes it current compares.
    fn directory_of(&self, key: Key, slot: usize, child: Key) -> Option<Key> {
        if key == Key::glue(&self.ctx, Level::L3) {
            return directory_key(&self.ctx, slot);
        }
        let named = crate::PagingCtx { pdptes: [child.gfn.base().raw() | 1; 4], ..key.role.ctx(&self.ctx) };
        if slot < 4 { directory_key(&named, slot) } else { None }
    }

    /// Which page a glue or direct page must name.
    fn key_below(&self, key: Key, slot: usize) -> Option<Key> {
        let role = key.role;
        let below = role.level().down()?;
        let ctx = crate::PagingCtx { root: key.gfn, part: role.part(), ..role.ctx(&self.ctx) };
        let gva = frame_index(role.level(), 0, slot);
        if role.direct() {
            let frame = key.gfn.add(gva.raw() >> 12);
            return Some(Key::direct(&ctx, below, frame, (role.perms(), role.dirty())));
        }
        match role.format() {
            PagingMode::Off => Some(Key::direct(&ctx, below, Gfn::new(gva.raw() >> 12), (Perms::ALL, true))),
            PagingMode::Legacy32 if below.number() <= Legacy32::LEVELS => {
                Some(Key::table::<Legacy32>(&ctx, below, gva, (key.gfn, Perms::ALL)))
            }
            PagingMode::Legacy32 | PagingMode::Pae => Some(Key::glue(&ctx, below)),
            PagingMode::Long4 | PagingMode::Long5 => None,
        }
    }

    fn audit_frames(&self, census: &Census) -> Audit {
        let mut leaves = census.leaves;
        let mut live = census.live.wrapping_sub(census.keyless);
        for (gfn, frame) in self.frames.iter() {
            for node in self.links.iter(frame.rmap) {
                let page = self.pool.get(page_of(node))?;
                let maps = page.live
                    && page.has(slot_of(node))
                    && page.key.role.level() == Level::L1
                    && u64::from(self.links.target(node)?) == gfn.raw();
                check(maps, Violation::RmapForeign).map_err(|e| e.of(gfn))?;
                leaves = leaves.wrapping_sub(1);
            }
            let chain = self.audit_chain(gfn, frame.pages).map_err(|e| e.of(gfn))?;
            live = live.wrapping_sub(chain.pages);
            let right = usize::from(frame.tables) == chain.tables && usize::from(frame.upper) == chain.upper;
            check(right, Violation::TablesMiscounted).map_err(|e| e.of(gfn))?;
            self.audit_unsync(gfn, frame).map_err(|e| e.of(gfn))?;
        }
        check(leaves == 0, Violation::RmapLacks)?;
        self.audit_blocks(census.large)?;
        check(census.tables == 0, Violation::ParentLacks)?;
        check(live == 0, Violation::KeyLost)
    }

    /// I5: only leaf tables that nobody watches, and no more than the policy allows.
    fn audit_unsync(&self, gfn: Gfn, frame: &Frame) -> Audit {
        check(frame.is_unsync() == self.unsync.has(gfn), Violation::UnsyncUnlisted)?;
        if !frame.is_unsync() {
            return Ok(());
        }
        check(frame.upper == 0, Violation::UnsyncUpper)?;
        check(frame.tables != 0 && frame.watches == 0, Violation::UnsyncNoTable)?;
        check(self.unsync.is_sound(), Violation::UnsyncTooMany)
    }

    /// Pages of a guest frame, and how many of them shadow it as a table. No two have the same role.
    fn audit_chain(&self, gfn: Gfn, first: u32) -> Result<Chain, AuditError> {
        let mut chain = Chain::default();
        let mut index = first;
        while index != NIL && chain.pages <= self.pool.len() {
            let page = self.pool.get(index)?;
            check(page.live && page.key.gfn == gfn, Violation::ChainForeign)?;
            let mut other = page.next_same;
            while other != NIL {
                let twin = self.pool.get(other)?;
                check(twin.key.role != page.key.role, Violation::KeyTwice)?;
                other = twin.next_same;
            }
            let role = page.key.role;
            chain.pages = chain.pages.saturating_add(1);
            chain.tables = chain.tables.saturating_add(usize::from(role.is_table()));
            chain.upper = chain.upper.saturating_add(usize::from(role.is_table() && !role.is_leaf_table()));
            index = page.next_same;
        }
        Ok(chain)
    }

    fn audit_roots(&self) -> Audit {
        let roots = || self.pool.iter().filter(|(_, page)| page.live && page.key.role.is_root());
        for &view in View::all(&self.ctx) {
            let Some(id) = self.root_of_view(view) else {
                return check(self.root.is_none(), Violation::ViewRootless);
            };
            let Some(page) = self.pool.checked(id) else {
                return check(false, Violation::RootGone);
            };
            let wanted = self.root_key(&crate::PagingCtx { view, ..self.ctx });
            check(page.key == wanted, Violation::RootOther)?;
        }
        let most = self.policy.most_roots(View::all(&self.ctx).len());
        check(roots().count() <= most, Violation::TooManyRoots)?;
        let Some((_, first)) = roots().next() else { return Ok(()) };
        for (index, page) in roots() {
            let same = WINDOW.into_iter().all(|s| self.tables.load(page.pfn, s) == self.tables.load(first.pfn, s));
            check(same, Violation::WindowsDiffer).map_err(|e| e.at(index, WINDOW.start))?;
        }
        Ok(())
    }
}
