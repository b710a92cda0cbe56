//! What is known about each guest frame: who maps it, which tables it is, whether its writes are watched. Owns I4 and I6.

use alloc::vec;
use alloc::vec::Vec;

use bitflags::bitflags;

use crate::access::Access;
use crate::addr::{Gfn, Gpa};
use crate::event::{Event, Observer};
use crate::links::NIL;
use crate::stop::Broken;

/// State of one guest frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// First node of the reverse map: the leaves that map this frame.
    pub(crate) rmap: u32,
    /// First shadow page with this frame as its key.
    pub(crate) pages: u32,
    /// Flush epoch in which a leaf last lost its write right to this frame without a flush.
    pub(crate) stale_epoch: u32,
    /// How many shadow pages have this frame as their guest table.
    pub(crate) tables: u16,
    /// How many of them are above the leaves.
    pub(crate) upper: u16,
    /// How many watches the caller holds.
    pub(crate) watches: u16,
    /// What was done to it since the caller last asked.
    pub(crate) uses: Uses,
    /// Writes that were followed in `write_epoch`, up to the policy's patience.
    pub(crate) writes: u8,
    /// Flush epoch to which `writes` belongs.
    pub(crate) write_epoch: u32,
    /// Writes of the kind that may give up the shadow of this table, since the last of another kind.
    pub(crate) burst: u8,
    /// If not 0, its shadows may be out of sync, and the guest writes it natively: one more than the number of its snapshot.
    pub(crate) snapshot: u16,
}

bitflags! {
    /// What was done to a frame since the caller last asked. I13: whoever makes a leaf sets what the leaf allows, and whoever
    /// clears a bit here takes that right away first. So a bit that is clear is an exact answer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Uses: u8 {
        /// It was accessed.
        const ACCESSED = 1 << 0;
        /// It was written.
        const WRITTEN = 1 << 1;
        /// It was written since the dirty log was last collected.
        const LOGGED = 1 << 2;
        /// What stands for a write.
        const WRITE = Self::ACCESSED.bits() | Self::WRITTEN.bits() | Self::LOGGED.bits();
    }
}

impl Frame {
    /// Must no shadow entry grant writes to it?
    #[inline]
    pub(crate) const fn tracked(&self) -> bool {
        self.followed() || self.watches != 0
    }

    /// Is it a table whose shadows follow every write?
    #[inline]
    pub(crate) const fn followed(&self) -> bool {
        self.tables != 0 && !self.is_unsync()
    }

    /// May its shadows be out of sync?
    #[inline]
    pub(crate) const fn is_unsync(&self) -> bool {
        self.snapshot != 0
    }

    /// May a shadow entry grant writes to it, as far as this frame is concerned? I4, I13.
    #[inline]
    pub(crate) const fn may_write(&self) -> bool {
        !self.tracked() && self.uses.contains(Uses::WRITE)
    }

    /// May a large leaf map it, with others? Nothing is withheld for its own sake, and no shadow depends on it. I16.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        self.tables == 0 && self.watches == 0 && self.uses.is_all()
    }

    /// May a shadow entry map it that nobody has asked for? I13.
    #[inline]
    pub(crate) const fn may_map(&self) -> bool {
        self.uses.contains(Uses::ACCESSED)
    }
}

/// All guest frames that can hold memory.
#[derive(Debug)]
pub(crate) struct Frames {
    frames: Vec<Frame>,
}

impl Frames {
    pub(crate) fn new(count: usize) -> Self {
        let frame = Frame {
            rmap: NIL,
            pages: NIL,
            stale_epoch: 0,
            tables: 0,
            upper: 0,
            watches: 0,
            uses: Uses::all(),
            writes: 0,
            write_epoch: 0,
            burst: 0,
            snapshot: 0,
        };
        Self { frames: vec![frame; count] }
    }

    #[inline]
    pub(crate) fn find(&self, gfn: Gfn) -> Option<&Frame> {
        self.frames.get(usize::try_from(gfn.raw()).ok()?)
    }

    /// A frame that must exist.
    #[inline]
    pub(crate) fn get(&self, gfn: Gfn) -> Result<&Frame, Broken> {
        self.find(gfn).ok_or(Broken(1))
    }

    /// A frame that must exist.
    #[inline]
    pub(crate) fn get_mut(&mut self, gfn: Gfn) -> Result<&mut Frame, Broken> {
        usize::try_from(gfn.raw()).ok().and_then(|n| self.frames.get_mut(n)).ok_or(Broken(1))
    }

    /// An access to a frame is about to be let through, or was made by this library or by the caller.
    #[inline]
    pub(crate) fn note(&mut self, gfn: Gfn, uses: Uses) {
        if let Some(frame) = usize::try_from(gfn.raw()).ok().and_then(|n| self.frames.get_mut(n)) {
            frame.uses |= uses;
        }
    }

    #[inline]
    pub(crate) fn tracked(&self, gfn: Gfn) -> bool {
        self.find(gfn).is_some_and(Frame::tracked)
    }

    /// How many frames there can be.
    pub(crate) fn len(&self) -> u64 {
        self.frames.len() as u64
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Gfn, &Frame)> {
        self.frames.iter().enumerate().map(|(n, frame)| (Gfn::new(n as u64), frame))
    }
}

impl From<Access> for Uses {
    #[inline]
    fn from(access: Access) -> Self {
        if access.is_write() { Self::WRITE } else { Self::ACCESSED }
    }
}

/// Notes which guest tables a walk reads and marks, and passes its events on.
pub(crate) struct NoteWalk<'a, O> {
    pub(crate) frames: &'a mut Frames,
    pub(crate) observer: &'a mut O,
}

impl<O: Observer> Observer for NoteWalk<'_, O> {
    #[inline(always)] // A call would have the event in memory, for two instructions of work.
    fn event(&mut self, event: Event) {
        if let Event::Walk { marked, entry, .. } = event {
            self.note_entry(entry, marked);
        }
        self.observer.event(event);
    }
}

impl<O> NoteWalk<'_, O> {
    #[inline]
    fn note_entry(&mut self, entry: Gpa, marked: bool) {
        self.frames.note(entry.gfn(), if marked { Uses::WRITE } else { Uses::ACCESSED });
    }
}
