//! Who owns each frame of physical memory. This is what the last gates (`tables`, `phys`) decide by.
//!
//! A frame that any shadow entry still names cannot be freed, and a freed frame is not reused before the TLB is empty
//! (the world must be activated again, which loads CR3). So no guest reaches a frame that stopped being its own.

mod table;

use crate::cell::SingleCpu;
use crate::{cpu, phys};
use gnomon_boot::{BootInfo, MemoryKind, Range, WINDOW_SIZE};
use shadow_mmu::Pfn;

pub(crate) use table::{FrameInfo, FrameTable, Tag};
pub use table::{Owner, Stats, VmId};

const PAGE: u64 = 4096;
/// The first MiB stays as the firmware left it: its maps of that range are unreliable, and little is lost.
const LOW_MEMORY: u64 = 1 << 20;

static FRAMES: SingleCpu<FrameTable> = SingleCpu::new(FrameTable::empty());

/// Runs `f` with the table.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&mut FrameTable) -> R) -> R {
    // SAFETY: every caller passes a closure that touches nothing but the table and memory; none calls back into this module.
    unsafe { FRAMES.with(f) }
}

/// Builds the table from the loader's memory map. The first MiB, the kernel, boot modules and everything the map does not
/// call usable belong to no guest, whatever order the map's entries come in. The table itself goes into usable memory.
///
/// # Panics
/// If no usable memory has room for the table: a machine that small cannot hold the kernel either.
pub fn init(info: &BootInfo) {
    let end = usable(info).map(|r| r.end).max().unwrap_or(0);
    let count = (end / PAGE) as usize;
    let bytes = (count * size_of::<FrameInfo>()).next_multiple_of(PAGE as usize) as u64;
    let place = find_place(info, bytes).expect("no usable memory for the frame table");
    // SAFETY: `find_place` gave a page-aligned range of usable memory that nothing else uses, and the window shows it.
    let table = unsafe { core::slice::from_raw_parts_mut(phys::window(place.start), count) };
    table.fill(FrameInfo::of(Owner::Reserved));
    for region in usable(info) {
        mark(table, region, Owner::Free);
    }
    for region in info.memory.iter().filter(|r| r.kind == MemoryKind::Reserved) {
        mark(table, outwards(Range { start: region.start, end: region.end }), Owner::Reserved);
    }
    for module in &*info.modules {
        mark(table, outwards(Range { start: module.start, end: module.end }), Owner::Reserved);
    }
    mark(table, outwards(info.image.all), Owner::Host);
    mark(table, place, Owner::Host);
    let built = FrameTable::new(table);
    with(|frames| *frames = built);
}

/// The whole frames of usable memory above the first MiB and inside the window.
fn usable(info: &BootInfo) -> impl Iterator<Item = Range> {
    info.memory.iter().filter(|r| r.kind == MemoryKind::Usable).filter_map(|r| {
        let start = r.start.max(LOW_MEMORY).next_multiple_of(PAGE);
        let end = r.end.min(WINDOW_SIZE) & !(PAGE - 1);
        (start < end).then_some(Range { start, end })
    })
}

/// What the loader put into usable memory.
fn taken(info: &BootInfo) -> impl Iterator<Item = Range> {
    info.modules.iter().map(|m| Range { start: m.start, end: m.end }).chain([info.image.all])
}

fn outwards(range: Range) -> Range {
    Range { start: range.start & !(PAGE - 1), end: range.end.min(WINDOW_SIZE).next_multiple_of(PAGE) }
}

/// The lowest `bytes` of usable memory that overlap nothing taken or reserved.
fn find_place(info: &BootInfo, bytes: u64) -> Option<Range> {
    let reserved = info.memory.iter().filter(|r| r.kind == MemoryKind::Reserved);
    let blocked = || taken(info).chain(reserved.clone().map(|r| Range { start: r.start, end: r.end })).map(outwards);
    usable(info).find_map(|region| {
        let mut at = region.start;
        while at + bytes <= region.end {
            match blocked().filter(|b| b.start < at + bytes && at < b.end).map(|b| b.end).max() {
                Some(end) => at = end,
                None => return Some(Range { start: at, end: at + bytes }),
            }
        }
        None
    })
}

fn mark(table: &mut [FrameInfo], range: Range, owner: Owner) {
    let (first, end) = ((range.start / PAGE) as usize, (range.end / PAGE) as usize);
    let end = end.min(table.len());
    table.get_mut(first..end).unwrap_or_default().fill(FrameInfo::of(owner));
}

/// A free frame, its content unspecified. `None`: memory is used up.
#[must_use]
pub fn alloc(owner: Owner) -> Option<Pfn> {
    with(|frames| frames.alloc(owner)).map(Pfn::new)
}

/// A free frame from a pseudo-random place, never a physical neighbour of the frame given before while others are free: guest
/// memory is scattered, so that nothing comes to rely on neighbours.
#[must_use]
pub fn alloc_scattered(owner: Owner) -> Option<Pfn> {
    with(|frames| frames.alloc_scattered(owner)).map(Pfn::new)
}

/// 512 physically contiguous frames from a border of 2 MiB on, which one entry can map; gives the first.
#[must_use]
pub fn alloc_block(owner: Owner) -> Option<Pfn> {
    with(|frames| frames.alloc_block(owner)).map(Pfn::new)
}

/// `count` physically contiguous frames; gives the first.
#[must_use]
pub fn alloc_contiguous(count: usize, owner: Owner) -> Option<Pfn> {
    with(|frames| frames.alloc_contiguous(count, owner)).map(Pfn::new)
}

/// Gives a frame of a guest or a shadow table back. A frame that shadow entries still name, and one that is the host's or
/// nobody's, is kept, with an error in the log: a bug of the caller that must not become a hole in the isolation.
pub fn free(frame: Pfn) {
    let allowed = matches!(owner(frame), Owner::Guest(_) | Owner::Table(_) | Owner::Nested(_) | Owner::Code(_));
    if allowed && with(|frames| frames.free(frame.raw())) {
        cpu::deactivate();
    } else {
        log::error!("frame {frame} cannot be freed: it is still mapped, or not a guest's");
    }
}

/// Gives frames of the host back.
///
/// # Safety
/// The frames came from [`alloc_contiguous`] for `Owner::Host`, and nothing refers to their memory any more.
pub(crate) unsafe fn free_host(first: Pfn, count: usize) {
    (0..count as u64).for_each(|i| {
        with(|frames| frames.free(first.raw() + i));
    });
    cpu::deactivate();
}

/// Gives back all memory and tables of `vm`. Its world can no longer run guest code until it gets a new root.
pub fn release_all(vm: VmId) {
    cpu::forget_roots();
    with(|frames| frames.release_all(vm));
}

/// Who owns a frame; frames outside memory are [`Owner::Reserved`].
#[must_use]
pub fn owner(frame: Pfn) -> Owner {
    with(|frames| frames.owner(frame.raw()))
}

/// How much memory is whose. Scans the table: for reports, not for hot paths.
#[must_use]
pub fn stats() -> Stats {
    with(|frames| frames.stats())
}
