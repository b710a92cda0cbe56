//! The guest page walk: what the CPU would do with the guest's own tables (SDM 3A 4.3 to 4.8).
//!
//! A walk is a value. A and D bits are set by compare-exchange once the whole walk is known to succeed, in every entry used; a
//! walk that faults sets none (the SDM leaves it open; KVM and Bochs do it like this, QEMU marks upper levels earlier).

use crate::access::{Access, GuestFault, Perms, PfErr};
use crate::addr::{Gfn, Gpa, Gva, Level};
use crate::controls::PagingCtx;
use crate::event::{Event, Observer};
use crate::mem::{CmpxchgError, GfnKind, GuestMem};
use crate::pte::{GuestFormat, GuestPte, entry_gpa, is_address, span_shift};
use crate::stop::VmStop;
use crate::straight::walk_straight;

/// Deepest guest format there will be.
pub(crate) const MAX_GUEST_LEVELS: usize = 5;

/// Does a walk set A and D bits?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// As the CPU does.
    Set,
    /// Look only.
    Leave,
    /// No walk, if there is any to be set: [`WalkError::Retry`].
    Demand,
}

/// A guest table that a walk used, with the rights gathered above it, in one word: `gfn << 3 | perms`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Step(u64);

impl Step {
    const NONE: Self = Self(0);

    #[inline]
    pub(crate) const fn new(table: Gfn, inherited: Perms) -> Self {
        Self(table.raw() << 3 | inherited.bits() as u64)
    }

    /// The table's frame.
    #[inline]
    pub(crate) const fn table(self) -> Gfn {
        Gfn::new(self.0 >> 3)
    }

    /// Rights of the levels above.
    #[inline]
    pub(crate) const fn inherited(self) -> Perms {
        Perms::from_bits(self.0 as u8)
    }
}

/// The raw entries of a walk, by level.
type Raws = [u64; MAX_GUEST_LEVELS];

/// A complete walk that allows its access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// By level, `L1` first; only those from `leaf` up to the format's top are meaningful.
    pub(crate) steps: [Step; MAX_GUEST_LEVELS],
    /// Number of the level that maps the page; one more than all levels if the guest does not page.
    pub(crate) leaf: u8,
    /// The 4 KiB frame.
    pub(crate) gfn: Gfn,
    /// Rights of all levels together.
    pub(crate) perms: Perms,
    /// D bit of the leaf, after the walk.
    pub(crate) dirty: bool,
    /// G bit of the leaf.
    pub(crate) global: bool,
}

/// How a walk can end otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WalkError {
    /// The guest's own fault.
    Fault(GuestFault),
    /// An entry changed under the walk: begin again. Or a mark that was [demanded](Mark::Demand) is not there.
    Retry,
    /// A table on the way lies in a frame that is not resident.
    NotResident(Gfn),
    /// No address of long mode.
    NonCanonical,
    /// The VM cannot go on.
    Stop(VmStop),
}

impl Walk {
    /// The walk of a guest that does not page.
    #[inline]
    pub(crate) fn flat(gva: Gva) -> Self {
        Self {
            steps: [Step::NONE; MAX_GUEST_LEVELS],
            leaf: Level::L5 as u8,
            gfn: Gpa::new(gva.raw()).gfn(),
            perms: Perms::ALL,
            dirty: true,
            global: false,
        }
    }

    /// The physical address of `gva`.
    #[inline]
    pub(crate) fn gpa(&self, gva: Gva) -> Gpa {
        self.gfn.base().add(gva.offset())
    }

    /// The step at a level.
    #[inline]
    pub(crate) fn step(&self, level: Level) -> Option<Step> {
        self.steps.get(usize::from(level.number()).wrapping_sub(1)).copied()
    }
}

/// Walks the guest's tables for `access` to `gva`.
#[inline(always)] // What it finds stays in registers so; the walk level by level is a call.
pub(crate) fn walk<F: GuestFormat, G: GuestMem, O: Observer>(
    mem: &G,
    ctx: &PagingCtx,
    (gva, access): (Gva, Access),
    mark: Mark,
    observer: &mut O,
) -> Result<Walk, WalkError> {
    // The one format of two levels with entries of 4 bytes.
    if F::LEVELS == 2
        && F::ENTRY_SHIFT == 2
        && let Some(done) = walk_straight(mem, ctx, (gva, access), mark, observer)
    {
        return done;
    }
    walk_levels::<F, G, O>(mem, ctx, (gva, access), mark, observer)
}

/// The same, level by level: for every format, and for what [`walk_straight`] leaves.
#[inline(never)]
pub(crate) fn walk_levels<F: GuestFormat, G: GuestMem, O: Observer>(
    mem: &G,
    ctx: &PagingCtx,
    (gva, access): (Gva, Access),
    mark: Mark,
    observer: &mut O,
) -> Result<Walk, WalkError> {
    if !is_address::<F>(gva) {
        return Err(if F::SPLIT { WalkError::NonCanonical } else { WalkError::Stop(VmStop::AddressTooWide(gva)) });
    }
    if F::LEVELS == 0 {
        return Ok(Walk::flat(gva));
    }
    let mut raws: Raws = [0; MAX_GUEST_LEVELS];
    let mut walk = descend::<F, G>(mem, ctx, (gva, access), &mut raws)?;
    if !ctx.allows::<F>(walk.perms, access) {
        return Err(WalkError::Fault(ctx.denial(gva, access, walk.perms)));
    }
    if mark == Mark::Demand && !is_marked::<F>(&walk, &raws, access) {
        return Err(WalkError::Retry);
    }
    if mark != Mark::Leave {
        set_marks::<F, G, O>(mem, (&mut walk, &mut raws), (gva, access), observer)?;
    }
    Ok(walk)
}

/// Reads the entries from the top down to the leaf.
#[inline]
fn descend<F: GuestFormat, G: GuestMem>(
    mem: &G,
    ctx: &PagingCtx,
    (gva, access): (Gva, Access),
    raws: &mut Raws,
) -> Result<Walk, WalkError> {
    let mut walk = Walk::flat(gva);
    let Some(mut table) = F::top(ctx, gva) else {
        return Err(WalkError::Fault(ctx.fault(gva, access, PfErr::empty())));
    };
    let mut number = F::LEVELS;
    while let Some(level) = Level::from_number(number) {
        let entry = entry_gpa::<F>(table, level, gva);
        let Some(raw) = F::read(mem, entry) else {
            return Err(no_memory(mem, gva, entry, level));
        };
        let place = usize::from(number).wrapping_sub(1);
        if let (Some(step), Some(kept)) = (walk.steps.get_mut(place), raws.get_mut(place)) {
            *step = Step::new(table, walk.perms);
            *kept = raw;
        }
        match F::decode(raw, level, ctx) {
            GuestPte::Absent => return Err(WalkError::Fault(ctx.fault(gva, access, PfErr::empty()))),
            GuestPte::Reserved => {
                return Err(WalkError::Fault(ctx.fault(gva, access, PfErr::PRESENT | PfErr::RESERVED)));
            }
            GuestPte::Table { gfn, perms, .. } => {
                walk.perms = walk.perms & perms;
                table = gfn;
                number = number.wrapping_sub(1);
            }
            GuestPte::Leaf { gfn, perms, dirty, global, .. } => {
                walk.perms = walk.perms & perms;
                walk.leaf = number;
                walk.dirty = dirty;
                walk.global = global;
                walk.gfn = frame_in_leaf::<F>(gfn, level, gva);
                return Ok(walk);
            }
        }
    }
    Err(WalkError::Stop(VmStop::Internal { invariant: 12 }))
}

/// Why an entry could not be read or marked.
#[cold]
fn no_memory<G: GuestMem>(mem: &G, gva: Gva, entry: Gpa, level: Level) -> WalkError {
    match mem.kind(entry.gfn()) {
        GfnKind::NotResident => WalkError::NotResident(entry.gfn()),
        _ => WalkError::Stop(VmStop::TableOutsideMemory { gva, entry, level }),
    }
}

/// The 4 KiB frame of a possibly large page that holds `gva`.
#[inline]
pub(crate) fn frame_in_leaf<F: GuestFormat>(page: Gfn, level: Level, gva: Gva) -> Gfn {
    let frames = 1u64 << span_shift::<F>(level).wrapping_sub(12);
    page.add(gva.raw() >> 12 & frames.wrapping_sub(1))
}

/// Whether every entry used has A and, for a write, the leaf D.
fn is_marked<F: GuestFormat>(walk: &Walk, raws: &Raws, access: Access) -> bool {
    let first = usize::from(walk.leaf).wrapping_sub(1);
    let used = raws.get(first..usize::from(F::LEVELS)).unwrap_or(&[]);
    used.iter().all(|raw| raw & F::ACCESSED != 0) && (walk.dirty || !access.is_write())
}

/// Sets A in every entry used and, for a write, D in the leaf (SDM 3A 4.8).
#[inline]
fn set_marks<F: GuestFormat, G: GuestMem, O: Observer>(
    mem: &G,
    (walk, raws): (&mut Walk, &mut Raws),
    (gva, access): (Gva, Access),
    observer: &mut O,
) -> Result<(), WalkError> {
    let leaf = walk.leaf;
    let mut number = F::LEVELS;
    while let Some(level) = Level::from_number(number) {
        let place = usize::from(number).wrapping_sub(1);
        let (Some(step), Some(raw)) = (walk.steps.get(place), raws.get_mut(place)) else { break };
        let entry = entry_gpa::<F>(step.table(), level, gva);
        let mut wanted = *raw | F::ACCESSED;
        if number == leaf && access.is_write() {
            wanted |= F::DIRTY;
            walk.dirty = true;
        }
        let marked = wanted != *raw;
        if marked {
            match mark_entry::<F, G>(mem, entry, *raw, wanted) {
                Ok(now) => *raw = now,
                Err(CmpxchgError::Changed) => return Err(WalkError::Retry),
                Err(CmpxchgError::NoMemory) => {
                    return Err(no_memory(mem, gva, entry, level));
                }
            }
        }
        observer.event(Event::Walk { level, marked, gva, entry, gpte: *raw });
        if number == leaf {
            break;
        }
        number = number.wrapping_sub(1);
    }
    Ok(())
}

/// Sets the marks of `wanted` in an entry that was read as `raw`. That the entry has got other marks meanwhile is no change: a
/// table that maps itself may be used at two levels of one walk.
#[inline]
pub(crate) fn mark_entry<F: GuestFormat, G: GuestMem>(
    mem: &G,
    entry: Gpa,
    raw: u64,
    wanted: u64,
) -> Result<u64, CmpxchgError> {
    match F::cmpxchg(mem, entry, raw, wanted) {
        Ok(()) => Ok(wanted),
        Err(CmpxchgError::NoMemory) => Err(CmpxchgError::NoMemory),
        Err(CmpxchgError::Changed) => {
            let now = F::read(mem, entry).ok_or(CmpxchgError::NoMemory)?;
            if (now ^ raw) & !(F::ACCESSED | F::DIRTY) != 0 {
                return Err(CmpxchgError::Changed);
            }
            F::cmpxchg(mem, entry, now, now | wanted)?;
            Ok(now | wanted)
        }
    }
}
