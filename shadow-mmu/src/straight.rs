//! The walk that is made most, without a loop: two levels, a page of 4 KiB. It gives up where anything else comes up, and then
//! [`walk`](crate::walk) does it, which is the reference.

use crate::access::{Access, Perms, PfErr};
use crate::addr::{Gfn, Gva, Level};
use crate::controls::{PagingCtx, PagingMode};
use crate::event::{Event, Observer};
use crate::mem::{CmpxchgError, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{GuestFormat, GuestPte, Legacy32, entry_gpa, is_address};
use crate::walk::{Mark, Step, Walk, WalkError, mark_entry};

/// Walks 2-level tables. `None`: nothing was done.
#[inline(always)] // What it finds stays in registers so.
pub(crate) fn walk_straight<G: GuestMem, O: Observer>(
    mem: &G,
    ctx: &PagingCtx,
    (gva, access): (Gva, Access),
    mark: Mark,
    observer: &mut O,
) -> Option<Result<Walk, WalkError>> {
    if !is_address::<Legacy32>(gva) {
        return None;
    }
    let absent = || Some(Err(WalkError::Fault(ctx.fault(gva, access, PfErr::empty()))));
    let upper_entry = entry_gpa::<Legacy32>(ctx.root, Level::L2, gva);
    let upper = Legacy32::read(mem, upper_entry)?;
    let (table, above) = match Legacy32::decode(upper, Level::L2, ctx) {
        GuestPte::Table { gfn, perms, .. } => (gfn, perms),
        GuestPte::Absent => return absent(),
        GuestPte::Leaf { .. } | GuestPte::Reserved => return None,
    };
    let leaf_entry = entry_gpa::<Legacy32>(table, Level::L1, gva);
    let leaf = Legacy32::read(mem, leaf_entry)?;
    let (gfn, own, dirty, global) = match Legacy32::decode(leaf, Level::L1, ctx) {
        GuestPte::Leaf { gfn, perms, dirty, global, .. } => (gfn, perms, dirty, global),
        GuestPte::Absent => return absent(),
        GuestPte::Table { .. } | GuestPte::Reserved => return None,
    };
    let perms = above & own;
    if !ctx.allows::<Legacy32>(perms, access) {
        return Some(Err(WalkError::Fault(ctx.denial(gva, access, perms))));
    }
    if mark == Mark::Leave {
        return Some(Ok(Walk { global, ..found(gva, (ctx.root, table), above, (gfn, perms, dirty)) }));
    }
    if upper & Legacy32::ACCESSED == 0 {
        return None;
    }
    let written = if access.is_write() { Legacy32::DIRTY } else { 0 };
    let wanted = leaf | Legacy32::ACCESSED | written;
    let marked = wanted != leaf;
    if marked && mark == Mark::Demand {
        return Some(Err(WalkError::Retry));
    }
    if marked {
        match mark_entry::<Legacy32, G>(mem, leaf_entry, leaf, wanted) {
            Ok(_) => {}
            Err(CmpxchgError::Changed) => return Some(Err(WalkError::Retry)),
            Err(CmpxchgError::NoMemory) => return None,
        }
    }
    observer.event(Event::Walk { level: Level::L2, marked: false, gva, entry: upper_entry, gpte: upper });
    observer.event(Event::Walk { level: Level::L1, marked, gva, entry: leaf_entry, gpte: wanted });
    let dirty = dirty || access.is_write();
    Some(Ok(Walk { global, ..found(gva, (ctx.root, table), above, (gfn, perms, dirty)) }))
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// The guest frame that an access would reach, without any side effect; `None` if it would reach none.
    #[inline]
    pub fn frame_behind(&self, gva: Gva, access: Access) -> Option<Gfn> {
        // In line, what the walk finds beside the frame is not even put together.
        if self.ctx.mode == PagingMode::Legacy32
            && let Some(found) = walk_straight(&self.mem, &self.ctx, (gva, access), Mark::Leave, &mut ())
        {
            return found.ok().map(|walk| walk.gfn);
        }
        self.look(gva, access).ok().map(|walk| walk.gpa(gva).gfn())
    }
}

#[inline]
fn found(gva: Gva, (directory, table): (Gfn, Gfn), above: Perms, (gfn, perms, dirty): (Gfn, Perms, bool)) -> Walk {
    let mut walk = Walk { leaf: Level::L1.number(), gfn, perms, dirty, ..Walk::flat(gva) };
    let [first, second, ..] = &mut walk.steps;
    (*first, *second) = (Step::new(table, above), Step::new(directory, Perms::ALL));
    walk
}
