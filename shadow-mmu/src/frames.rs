//! What is known about each guest frame: who maps it, which tables it is, whether its writes are watched. Owns I4 and I6.

use alloc::vec;
use alloc::vec::Vec;

use crate::addr::Gfn;
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
    /// How many watches the caller holds.
    pub(crate) watches: u16,
}

impl Frame {
    /// Must no shadow entry grant writes to it?
    #[inline]
    pub(crate) const fn tracked(&self) -> bool {
        self.tables != 0 || self.watches != 0
    }
}

/// All guest frames that can hold memory.
#[derive(Debug)]
pub(crate) struct Frames {
    frames: Vec<Frame>,
}

impl Frames {
    pub(crate) fn new(count: usize) -> Self {
        let frame = Frame { rmap: NIL, pages: NIL, stale_epoch: 0, tables: 0, watches: 0 };
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

    #[inline]
    pub(crate) fn tracked(&self, gfn: Gfn) -> bool {
        self.find(gfn).is_some_and(Frame::tracked)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Gfn, &Frame)> {
        self.frames.iter().enumerate().map(|(n, frame)| (Gfn::new(n as u64), frame))
    }
}
