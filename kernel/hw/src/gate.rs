//! The rules of the last gate: which entries of shadow and second-level tables may exist. Pure, so that they can be tested; `tables`
//! applies them.
//!
//! Each table frame has a level, which it gets when it first becomes part of a tree and keeps until it is empty and unlinked.
//! An entry of an L1 table may name only the guest's own frames (its shadow code only for the supervisor to fetch and read), an entry of a higher table only a table of the level below and of
//! the same machine and [`Kind`]; an entry of an L2 table may also map 2 MiB that are all the guest's. So whatever
//! order safe code links tables in, the CPU can never take a table for a page or a page for a table, and no entry leads to a
//! foreign frame. Each frame counts the entries that name it; `frames::free` refuses a frame that is still named.

mod kind;

use crate::frames::{FrameInfo, FrameTable, Owner, Tag, VmId};
use shadow_mmu::Refused;

pub(crate) use kind::Kind;
pub use kind::{Nested, Shadow};

/// Entries in a table.
pub(crate) const ENTRIES: usize = 512;
/// Frames that an entry of 2 MiB maps.
const BLOCK: usize = 512;
/// The level of a root.
pub(crate) const ROOT: u8 = 4;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Checks the replacement of entry `index` of `table` by `new`, and keeps the counts. `old` reads what is there now, and is called only
/// if the table is the machine's; `is_empty` says whether a table holds no entries at all.
#[inline]
pub(crate) fn store<K: Kind>(
    frames: &mut FrameTable,
    vm: VmId,
    (table, index): (u64, usize),
    old: impl FnOnce() -> u64,
    new: u64,
    is_empty: impl Fn(u64) -> bool,
) -> Result<(), Refused> {
    let info = frames.get(table).ok_or(Refused)?;
    let window = info.level == ROOT && K::WINDOW.contains(&index);
    if info.owner != Tag::new(K::owner(vm)) || index >= ENTRIES || window {
        return Err(Refused);
    }
    if info.level == 1 {
        store_page::<K>(frames, vm, old(), new)
    } else {
        store_upper::<K>(frames, vm, table, (old(), new), is_empty)
    }
}

/// The same in an L1 table, which stays one: the frequent case.
#[inline]
fn store_page<K: Kind>(frames: &mut FrameTable, vm: VmId, old: u64, new: u64) -> Result<(), Refused> {
    if let Some(frame) = K::target(new) {
        let info = frames.get_mut(frame).ok_or(Refused)?;
        if info.owner != Tag::new(Owner::Guest(vm)) {
            if !K::CODE || info.owner != Tag::new(Owner::Code(vm)) {
                return Err(Refused);
            }
            code_level(new, 1)?;
        }
        info.links = info.links.saturating_add(1);
    }
    if let Some(info) = K::target(old).and_then(|frame| frames.get_mut(frame)) {
        info.links = info.links.saturating_sub(1);
    }
    Ok(())
}

/// The same in a table of a higher level, or of none yet.
#[inline(never)]
fn store_upper<K: Kind>(
    frames: &mut FrameTable,
    vm: VmId,
    table: u64,
    (old, new): (u64, u64),
    is_empty: impl Fn(u64) -> bool,
) -> Result<(), Refused> {
    let level = frames.get(table).ok_or(Refused)?.level;
    let (before, after) = (K::target(old), K::target(new));
    if let Some(frame) = after {
        let owner = frames.get(frame).ok_or(Refused)?.owner;
        let level = if K::CODE && owner == Tag::new(Owner::Code(vm)) {
            code_level(new, level)?
        } else if owner == Tag::new(Owner::Guest(vm)) {
            page_level(frames, vm, (frame, new), level)?
        } else {
            link_level::<K>(frames, vm, (frame, new), level, is_empty)?
        };
        frames.get_mut(table).ok_or(Refused)?.level = level;
    }
    if before != after || (old ^ new) & LARGE != 0 {
        count::<K>(frames, old, level, u32::saturating_sub);
        count::<K>(frames, new, level, u32::saturating_add);
    }
    Ok(())
}

/// The level of a table that is to name shadow code by `raw`: an L1 table, or one not used yet. Nobody writes it, and user code does
/// not see it.
fn code_level(raw: u64, level: u8) -> Result<u8, Refused> {
    if level <= 1 && raw & (WRITABLE | USER) == 0 { Ok(1) } else { Err(Refused) }
}

/// The level of a table that is to name guest memory: a page in an L1 table, or one not used yet, or 2 MiB in an L2 table.
fn page_level(frames: &mut FrameTable, vm: VmId, (first, raw): (u64, u64), level: u8) -> Result<u8, Refused> {
    if level <= 1 {
        return Ok(1);
    }
    let huge = level == 2 && raw & LARGE != 0 && first.is_multiple_of(BLOCK as u64);
    let own = |frames: &mut [FrameInfo]| frames.iter().all(|info| info.owner == Tag::new(Owner::Guest(vm)));
    if huge && frames.run_mut(first, BLOCK).is_some_and(own) { Ok(level) } else { Err(Refused) }
}

/// The level of a table, now `level`, that is to name table `child` by entry `raw`.
fn link_level<K: Kind>(
    frames: &mut FrameTable,
    vm: VmId,
    (child, raw): (u64, u64),
    level: u8,
    is_empty: impl Fn(u64) -> bool,
) -> Result<u8, Refused> {
    let info = frames.get_mut(child).ok_or(Refused)?;
    if info.owner != Tag::new(K::owner(vm)) || raw & LARGE != 0 {
        return Err(Refused);
    }
    match (level, info.level) {
        // Bottom up: a fresh table above one whose level is known.
        (0, below @ 1..=2) => Ok(below + 1),
        (2..=ROOT, below) if below == level - 1 => Ok(level),
        // Top down: a fresh table takes its place; so does one that was used elsewhere and is empty and unlinked by now.
        (2..=ROOT, below) if below == 0 || (info.links == 0 && is_empty(child)) => {
            info.level = level - 1;
            Ok(level)
        }
        _ => Err(Refused),
    }
}

/// Changes the counts of the frames that entry `raw` of a table of `level` names.
#[inline]
fn count<K: Kind>(frames: &mut FrameTable, raw: u64, level: u8, change: impl Fn(u32, u32) -> u32) {
    let Some(first) = K::target(raw) else { return };
    let span = if raw & LARGE != 0 && level > 1 { BLOCK } else { 1 };
    for info in frames.run_mut(first, span).unwrap_or_default() {
        info.links = change(info.links, 1);
    }
}

/// Entry `raw` of `table`, one of this machine's, is about to be zeroed.
pub(crate) fn dropped<K: Kind>(frames: &mut FrameTable, table: u64, raw: u64) {
    let level = frames.get(table).map_or(0, |info| info.level);
    count::<K>(frames, raw, level, u32::saturating_sub);
}

/// `table` was zeroed. If nothing names it, it is a fresh table again.
pub(crate) fn cleared(frames: &mut FrameTable, table: u64) {
    if let Some(info) = frames.get_mut(table).filter(|i| i.level != ROOT && i.links == 0) {
        info.level = 0;
    }
}

/// Is `table` a table of `vm`?
#[inline]
pub(crate) fn is_table<K: Kind>(frames: &FrameTable, vm: VmId, table: u64) -> bool {
    frames.get(table).is_some_and(|i| i.owner == Tag::new(K::owner(vm)))
}

/// Is `table` a root of `vm`?
pub(crate) fn is_root<K: Kind>(frames: &FrameTable, vm: VmId, table: u64) -> bool {
    frames.get(table).is_some_and(|i| i.owner == Tag::new(K::owner(vm)) && i.level == ROOT)
}

/// May `table` become a root? It must be a table of `vm` that no other table names.
pub(crate) fn can_be_root<K: Kind>(frames: &FrameTable, vm: VmId, table: u64) -> Result<(), Refused> {
    let info = frames.get(table).ok_or(Refused)?;
    if info.owner == Tag::new(K::owner(vm)) && info.links == 0 { Ok(()) } else { Err(Refused) }
}

/// Sets the level of a table of this machine: [`ROOT`] once it is one, 0 once it is empty again.
pub(crate) fn set_level(frames: &mut FrameTable, table: u64, level: u8) {
    if let Some(info) = frames.get_mut(table) {
        info.level = level;
    }
}

#[cfg(test)]
mod tests;
