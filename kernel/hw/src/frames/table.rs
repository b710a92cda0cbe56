/// Number of a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub u8);

/// Who may use a frame, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: can be allocated.
    Free,
    /// Not ours to use: firmware, devices, holes, boot modules.
    Reserved,
    /// The hypervisor: its image, tables and heap.
    Host,
    /// Memory of this guest.
    Guest(VmId),
    /// A shadow page table of this guest.
    Table(VmId),
    /// A second-level table (EPT or NPT) of this guest. Never linked with shadow tables: what an entry means differs.
    Nested(VmId),
    /// Shadow code of this guest: fetched and read by its supervisor, written by the hypervisor only.
    Code(VmId),
}

/// An [`Owner`] in 16 bits, so that a check is one compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u16);

impl Tag {
    pub(crate) const fn new(owner: Owner) -> Self {
        match owner {
            Owner::Free => Self(0),
            Owner::Reserved => Self(0x100),
            Owner::Host => Self(0x200),
            Owner::Guest(vm) => Self(0x300 | vm.0 as u16),
            Owner::Table(vm) => Self(0x400 | vm.0 as u16),
            Owner::Nested(vm) => Self(0x500 | vm.0 as u16),
            Owner::Code(vm) => Self(0x600 | vm.0 as u16),
        }
    }

    const fn owner(self) -> Owner {
        let vm = VmId(self.0 as u8);
        match self.0 >> 8 {
            0 => Owner::Free,
            2 => Owner::Host,
            3 => Owner::Guest(vm),
            4 => Owner::Table(vm),
            5 => Owner::Nested(vm),
            6 => Owner::Code(vm),
            _ => Owner::Reserved,
        }
    }

    /// Is it memory or a table of `vm`?
    pub(crate) const fn is_of(self, vm: VmId) -> bool {
        self.0 >> 8 >= 3 && self.0 as u8 == vm.0
    }
}

/// What is known of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct FrameInfo {
    pub(crate) owner: Tag,
    /// Of a table: 1..=4 once it has one, else 0. See `gate`.
    pub(crate) level: u8,
    _unused: u8,
    /// Shadow entries that name this frame.
    pub(crate) links: u32,
}

impl FrameInfo {
    pub(crate) const fn of(owner: Owner) -> Self {
        Self { owner: Tag::new(owner), level: 0, _unused: 0, links: 0 }
    }
}

/// How many frames belong to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// All frames that are or were usable memory.
    pub total: usize,
    /// Free frames.
    pub free: usize,
    /// The hypervisor's.
    pub host: usize,
    /// Guest memory of all machines.
    pub guest: usize,
    /// Shadow and second-level tables, and shadow code, of all machines.
    pub table: usize,
}

/// The frames of the machine, by frame number.
///
/// The lower part, the *zone*, is kept for runs of neighbouring frames (heap, worlds): scattered allocation leaves it alone until
/// nothing else is free.
pub(crate) struct FrameTable {
    frames: &'static mut [FrameInfo],
    zone_end: usize,
    /// Where the next plain search begins.
    next: usize,
    /// Where the last scattered frame was, and the step to the next: it visits every frame once before it comes back.
    scattered: usize,
    stride: usize,
    /// Nothing is free above the zone.
    full: bool,
    /// Nothing is free in the zone at or above this frame.
    zone_top: usize,
    /// Nothing is free below this frame.
    bottom: usize,
}

/// Frames of 2 MiB.
const BLOCK: usize = 512;

/// A step of about 0.618 of `len` that shares no factor with it.
fn stride(len: usize) -> usize {
    const fn gcd(a: usize, b: usize) -> usize {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    (len * 618 / 1000..len).find(|&step| step > 1 && gcd(step, len) == 1).unwrap_or(1)
}

impl FrameTable {
    /// Takes a table whose entries are all set. One eighth of the free frames, the lowest, become the zone.
    pub(crate) fn new(frames: &'static mut [FrameInfo]) -> Self {
        let free = frames.iter().filter(|f| f.owner == Tag::new(Owner::Free)).count();
        let mut left = free / 8;
        let mut zone_end = 0;
        for (i, frame) in frames.iter().enumerate() {
            if left == 0 {
                break;
            }
            left -= usize::from(frame.owner == Tag::new(Owner::Free));
            zone_end = i + 1;
        }
        let stride = stride(frames.len());
        Self { frames, zone_end, next: zone_end, scattered: 0, stride, full: false, zone_top: zone_end, bottom: 0 }
    }

    /// An empty table, before the memory is known.
    pub(crate) const fn empty() -> Self {
        Self { frames: &mut [], zone_end: 0, next: 0, scattered: 0, stride: 1, full: true, zone_top: 0, bottom: 0 }
    }

    #[inline]
    pub(crate) fn get(&self, frame: u64) -> Option<&FrameInfo> {
        self.frames.get(frame as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, frame: u64) -> Option<&mut FrameInfo> {
        self.frames.get_mut(frame as usize)
    }

    /// `count` frames from `first` on, if there are so many.
    #[inline]
    pub(crate) fn run_mut(&mut self, first: u64, count: usize) -> Option<&mut [FrameInfo]> {
        let first = first as usize;
        self.frames.get_mut(first..first.checked_add(count)?)
    }

    pub(crate) fn owner(&self, frame: u64) -> Owner {
        self.get(frame).map_or(Owner::Reserved, |f| f.owner.owner())
    }

    fn is_free(&self, frame: usize) -> bool {
        self.frames.get(frame).is_some_and(|f| f.owner == Tag::new(Owner::Free))
    }

    fn take(&mut self, frame: usize, owner: Owner) -> u64 {
        self.frames[frame] = FrameInfo::of(owner);
        frame as u64
    }

    pub(crate) fn alloc(&mut self, owner: Owner) -> Option<u64> {
        if !self.full {
            let round = (self.next..self.frames.len()).chain(self.zone_end..self.next);
            match { round }.find(|&i| self.is_free(i)) {
                Some(frame) => {
                    self.next = frame + 1;
                    return Some(self.take(frame, owner));
                }
                None => self.full = true,
            }
        }
        self.alloc_in_zone(owner)
    }

    /// A frame of the zone, from its top: what is left below stays in one piece.
    fn alloc_in_zone(&mut self, owner: Owner) -> Option<u64> {
        let frame = (0..self.zone_top).rev().find(|&i| self.is_free(i))?;
        self.zone_top = frame;
        Some(self.take(frame, owner))
    }

    /// Every call goes on where the last one ended, so that a full memory costs one round and not one for each frame.
    pub(crate) fn alloc_scattered(&mut self, owner: Owner) -> Option<u64> {
        if !self.full {
            match self.scatter() {
                Some(frame) => return Some(self.take(frame, owner)),
                None => self.full = true,
            }
        }
        self.alloc_in_zone(owner)
    }

    /// The next free frame above the zone in scattered order.
    fn scatter(&mut self) -> Option<usize> {
        let len = self.frames.len();
        for _ in 0..len {
            self.scattered = (self.scattered + self.stride) % len;
            if self.scattered >= self.zone_end && self.is_free(self.scattered) {
                return Some(self.scattered);
            }
        }
        None
    }

    /// 512 neighbouring frames from a border of 2 MiB on, above the zone; gives the first. The highest that are free, so that the blocks
    /// of a guest do not follow each other.
    pub(crate) fn alloc_block(&mut self, owner: Owner) -> Option<u64> {
        let blocks = self.zone_end.div_ceil(BLOCK)..self.frames.len() / BLOCK;
        let first =
            blocks.rev().map(|n| n * BLOCK).find(|&first| (first..first + BLOCK).all(|frame| self.is_free(frame)))?;
        (first..first + BLOCK).for_each(|frame| {
            self.take(frame, owner);
        });
        Some(first as u64)
    }

    /// `count` neighbouring frames, the lowest that are free; gives the first.
    pub(crate) fn alloc_contiguous(&mut self, count: usize, owner: Owner) -> Option<u64> {
        self.bottom = (self.bottom..self.frames.len()).find(|&i| self.is_free(i))?;
        let mut run = 0;
        for i in self.bottom..self.frames.len() {
            run = if self.is_free(i) { run + 1 } else { 0 };
            if run == count && count > 0 {
                let first = i + 1 - count;
                (first..=i).for_each(|frame| {
                    self.take(frame, owner);
                });
                return Some(first as u64);
            }
        }
        None
    }

    /// Frees a frame. A frame that shadow entries still name, or that is not anybody's, stays as it is: false.
    pub(crate) fn free(&mut self, frame: u64) -> bool {
        match self.get_mut(frame) {
            Some(f) if f.links == 0 && !matches!(f.owner.owner(), Owner::Free | Owner::Reserved) => {
                *f = FrameInfo::of(Owner::Free);
                self.freed(frame as usize);
                true
            }
            _ => false,
        }
    }

    /// Frees everything that belongs to `vm`. Its tables name only its own frames, so no entry is left that names a freed one.
    pub(crate) fn release_all(&mut self, vm: VmId) {
        for frame in self.frames.iter_mut().filter(|f| f.owner.is_of(vm)) {
            *frame = FrameInfo::of(Owner::Free);
        }
        self.full = false;
        (self.zone_top, self.bottom) = (self.zone_end, 0);
    }

    /// Lets the searches look at a frame again.
    fn freed(&mut self, frame: usize) {
        self.bottom = self.bottom.min(frame);
        if frame < self.zone_end {
            self.zone_top = self.zone_top.max(frame + 1);
        } else {
            self.full = false;
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for frame in self.frames.iter() {
            match frame.owner.owner() {
                Owner::Free => stats.free += 1,
                Owner::Host => stats.host += 1,
                Owner::Guest(_) => stats.guest += 1,
                Owner::Table(_) | Owner::Nested(_) | Owner::Code(_) => stats.table += 1,
                Owner::Reserved => continue,
            }
            stats.total += 1;
        }
        stats
    }
}

#[cfg(test)]
mod tests;
