//! The rules of the last gate: which shadow entries may exist. Pure, so that they can be tested; `tables` applies them.
//!
//! Each table frame has a level, which it gets when it first becomes part of a tree and keeps until it is empty and unlinked.
//! An entry of an L1 table may name only the guest's own frames, an entry of a higher table only a table of the level below and of
//! the same machine. So whatever order safe code links tables in, the CPU can never take a table for a page or a page for a
//! table, and no entry leads to a foreign frame. Each frame counts the entries that name it; `frames::free` refuses a frame
//! that is still named.

use crate::frames::{FrameTable, Owner, Tag, VmId};
use shadow_mmu::Refused;

/// Entries in a table.
pub(crate) const ENTRIES: usize = 512;
/// The first entry of a root that belongs to the hypervisor's window.
pub(crate) const WINDOW_ENTRY: usize = 256;
/// The level of a root.
pub(crate) const ROOT: u8 = 4;

const PRESENT: u64 = 1 << 0;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// The frame that entry `raw` names, if it is present.
#[inline]
pub(crate) fn target(raw: u64) -> Option<u64> {
    (raw & PRESENT != 0).then_some((raw & FRAME) >> 12)
}

/// Checks the replacement of entry `index` of `table`, now `old`, by `new`, and keeps the counts. `is_empty` says whether a
/// table holds no entries at all.
#[inline]
pub(crate) fn store(
    frames: &mut FrameTable,
    vm: VmId,
    (table, index): (u64, usize),
    old: u64,
    new: u64,
    is_empty: impl Fn(u64) -> bool,
) -> Result<(), Refused> {
    let info = frames.get(table).ok_or(Refused)?;
    if info.owner != Tag::new(Owner::Table(vm)) || index >= if info.level == ROOT { WINDOW_ENTRY } else { ENTRIES } {
        return Err(Refused);
    }
    let level = info.level;
    let (before, after) = (target(old), target(new));
    if let Some(frame) = after {
        let level = if frames.get(frame).ok_or(Refused)?.owner == Tag::new(Owner::Guest(vm)) {
            page_level(level)?
        } else {
            link_level(frames, vm, (frame, new), level, is_empty)?
        };
        frames.get_mut(table).ok_or(Refused)?.level = level;
    }
    if before != after {
        count(frames, before, after);
    }
    Ok(())
}

/// The level of a table that is to name a guest page: an L1 table, or one not used yet.
fn page_level(level: u8) -> Result<u8, Refused> {
    if level <= 1 { Ok(1) } else { Err(Refused) }
}

/// The level of a table, now `level`, that is to name table `child` by entry `raw`.
fn link_level(
    frames: &mut FrameTable,
    vm: VmId,
    (child, raw): (u64, u64),
    level: u8,
    is_empty: impl Fn(u64) -> bool,
) -> Result<u8, Refused> {
    let info = frames.get_mut(child).ok_or(Refused)?;
    if info.owner != Tag::new(Owner::Table(vm)) || raw & LARGE != 0 {
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

#[inline]
fn count(frames: &mut FrameTable, before: Option<u64>, after: Option<u64>) {
    if let Some(info) = before.and_then(|f| frames.get_mut(f)) {
        info.links = info.links.saturating_sub(1);
    }
    if let Some(info) = after.and_then(|f| frames.get_mut(f)) {
        info.links = info.links.saturating_add(1);
    }
}

/// Entry `raw` of a table of this machine is about to be zeroed.
pub(crate) fn dropped(frames: &mut FrameTable, raw: u64) {
    count(frames, target(raw), None);
}

/// `table` was zeroed. If nothing names it, it is a fresh table again.
pub(crate) fn cleared(frames: &mut FrameTable, table: u64) {
    if let Some(info) = frames.get_mut(table).filter(|i| i.level != ROOT && i.links == 0) {
        info.level = 0;
    }
}

/// Is `table` a table of `vm`?
#[inline]
pub(crate) fn is_table(frames: &FrameTable, vm: VmId, table: u64) -> bool {
    frames.get(table).is_some_and(|i| i.owner == Tag::new(Owner::Table(vm)))
}

/// Is `table` a root of `vm`?
pub(crate) fn is_root(frames: &FrameTable, vm: VmId, table: u64) -> bool {
    frames.get(table).is_some_and(|i| i.owner == Tag::new(Owner::Table(vm)) && i.level == ROOT)
}

/// Does `table` belong to `vm`, and how many entries does it have that safe code may use?
pub(crate) fn usable_entries(frames: &FrameTable, vm: VmId, table: u64) -> Option<usize> {
    let info = frames.get(table).filter(|i| i.owner == Tag::new(Owner::Table(vm)))?;
    Some(if info.level == ROOT { WINDOW_ENTRY } else { ENTRIES })
}

/// May `table` become a root? It must be a table of `vm` that no other table names.
pub(crate) fn can_be_root(frames: &FrameTable, vm: VmId, table: u64) -> Result<(), Refused> {
    let info = frames.get(table).ok_or(Refused)?;
    if info.owner == Tag::new(Owner::Table(vm)) && info.links == 0 { Ok(()) } else { Err(Refused) }
}

/// Sets the level of a table of this machine: [`ROOT`] once it has the window, 0 once it is empty again.
pub(crate) fn set_level(frames: &mut FrameTable, table: u64, level: u8) {
    if let Some(info) = frames.get_mut(table) {
        info.level = level;
    }
}

#[cfg(test)]
mod tests;
