//! Which frames the guest used and wrote: for eviction and for dirty logging.

use crate::access::AccessKind;
use crate::addr::{Gfn, Level, Pfn};
use crate::flush::FlushPlan;
use crate::mem::TableMem;
use crate::second::{SecondFormat, SecondLeaf, SecondLevel, SecondPte};
use crate::stop::VmStop;

/// How exact [`SecondLevel::harvest`] is, and what that costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageTracking {
    /// An upper bound: what is mapped may have been read, what is mapped writable may have been written.
    Off,
    /// Exact by violations: a frame is mapped read-only until it is first written. For CPUs whose tables have no A and D bits.
    ByViolation,
    /// Exact by the A and D bits that the CPU sets: NPT always, EPT if the EPT pointer asks for it.
    ByBits,
}

/// What became of a frame since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Some access.
    pub accessed: bool,
    /// A write.
    pub written: bool,
}

/// What is remembered of one guest frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameState {
    /// Watches the caller holds.
    pub(super) watches: u16,
    /// What entries said that are gone by now.
    used: Usage,
}

impl<F: SecondFormat, T: TableMem> SecondLevel<F, T> {
    /// What the guest did with a frame since the last call, or since it was first mapped; begins anew.
    ///
    /// With [`UsageTracking::ByBits`] the entry stays and loses its bits, else it goes and the next access is a violation.
    pub fn harvest(&mut self, gfn: Gfn) -> (Usage, FlushPlan) {
        let done = self.rearm(gfn);
        let used = self.state_mut(gfn).map_or(Usage::default(), |state| core::mem::take(&mut state.used));
        (used, self.finish(done))
    }

    /// Moves what the leaf of `gfn` tells into the frame's state.
    fn rearm(&mut self, gfn: Gfn) -> Result<(), VmStop> {
        let Some((table, slot, level)) = self.leaf_place(gfn) else { return Ok(()) };
        let SecondPte::Leaf(leaf) = F::decode(self.entry((table, slot))?, level) else { return Ok(()) };
        if self.usage != UsageTracking::ByBits || level != Level::L1 {
            return self.zap(gfn);
        }
        self.remember_use(gfn, leaf);
        if leaf.accessed || leaf.dirty {
            let clean = SecondLeaf { accessed: false, dirty: false, ..leaf };
            let pfn = self.arena.get(table)?.pfn;
            let index = u16::try_from(slot).unwrap_or(u16::MAX);
            self.tables.store(pfn, slot, F::leaf(clean, level)).map_err(|_| VmStop::Refused { table: pfn, index })?;
            // A cached entry would not set the bits again.
            self.flush_all();
        }
        Ok(())
    }

    /// Notes what a leaf tells before it changes.
    pub(super) fn remember_use(&mut self, gfn: Gfn, leaf: SecondLeaf) {
        if let Some(state) = self.state_mut(gfn) {
            state.used.accessed |= leaf.accessed;
            state.used.written |= leaf.dirty;
        }
    }

    /// The leaf for an access, with no more rights than the tracking allows.
    pub(super) fn new_leaf(&self, pfn: Pfn, writable: bool, access: AccessKind) -> SecondLeaf {
        match self.usage {
            UsageTracking::Off => SecondLeaf { pfn, writable, accessed: true, dirty: writable },
            UsageTracking::ByViolation => {
                let writable = writable && access == AccessKind::Write;
                SecondLeaf { pfn, writable, accessed: true, dirty: writable }
            }
            UsageTracking::ByBits => SecondLeaf { pfn, writable, accessed: false, dirty: false },
        }
    }
}
