//! Counters: always on, one array add each.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is counted: past events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Counter { $($(#[$doc])* $variant,)* }

        impl Counter {
            /// Every counter, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name: at most 16 ASCII characters.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

counters! {
    /// A fault filled a shadow entry; the guest never knew.
    HiddenFault = "hidden-faults",
    /// A shadow entry was made for an access that the guest was about to repeat.
    FilledAhead = "filled-ahead",
    /// A fault was the guest's own.
    TrueFault = "true-faults",
    /// A fault found nothing to do: the shadow allowed the access already.
    SpuriousFault = "spurious-faults",
    /// A write went to a tracked frame and must be emulated.
    TrackedWrite = "tracked-writes",
    /// A fetch from a page that must not be read has to be emulated.
    FetchEmulated = "fetches-emulated",
    /// An access went to a frame without memory.
    MmioAccess = "mmio-accesses",
    /// An access or a walk needed a frame that is not resident.
    AbsentFault = "absent-faults",
    /// An entry of a tracked table was written.
    GpteWrite = "gpte-writes",
    /// A shadow entry was changed in place by a table write.
    SpteUpdated = "sptes-updated",
    /// A shadow entry was made by a table write, before anyone asked for it.
    SpteEager = "sptes-eager",
    /// A shadow entry was made beside the one that a fault asked for.
    SptePrefetched = "sptes-prefetched",
    /// A shadow entry was made that maps 2 MiB.
    HugeFilled = "huge-fills",
    /// Such an entry was cleared because a frame of it needs entries of its own.
    HugeBroken = "huge-breaks",
    /// A shadow entry was cleared.
    SpteZapped = "sptes-zapped",
    /// A shadow entry lost its right to write because its frame became tracked.
    WriteRevoked = "writes-revoked",
    /// A shadow table was made.
    TableMade = "tables-made",
    /// A shadow table was given up.
    TableFreed = "tables-freed",
    /// A shadow table was given up because the pool was empty.
    TableEvicted = "tables-evicted",
    /// A table's shadow was given up because the guest seems to use the frame as data.
    TableReused = "tables-reused",
    /// A leaf table went out of sync at a write.
    TableUnsynced = "tables-unsynced",
    /// A table that was out of sync was brought in step and write-protected again.
    TableResynced = "tables-resynced",
    /// A shadow entry of a table out of sync was compared with the guest's.
    EntrySynced = "entries-synced",
    /// An absent shadow entry was marked: the guest's is not present.
    AbsentMarked = "absents-marked",
    /// A true fault was known by such a mark, without a walk.
    AbsentKnown = "absents-known",
    /// The virtual TLB was emptied.
    TlbDropped = "tlb-drops",
    /// The virtual TLB was emptied but for global pages.
    TlbTrimmed = "tlb-trims",
    /// A shadow entry was made for a global page, and outlives CR3 loads.
    SpteGlobal = "sptes-global",
    /// A root was given up because the root cache is smaller than the guest's address spaces.
    RootDropped = "roots-dropped",
    /// An upper table's shadow was given up because writes flooded it.
    TableFlooded = "tables-flooded",
    /// A leaf table's shadow was given up because the guest took right after right away.
    TableTornDown = "tables-torn-down",
    /// A control register load found its root in the pool.
    RootHit = "root-hits",
    /// A control register load had to make a root.
    RootMiss = "root-misses",
    /// The four PDPTEs were loaded.
    PdpteLoad = "pdpte-loads",
    /// A cached root had a directory in it that the loaded PDPTEs no longer name.
    PdpteChanged = "pdptes-changed",
    /// A frame was taken away from the guest.
    FrameTaken = "frames-taken",
    /// A frame was found accessed, and its mappings went so that the next access is seen.
    FrameAged = "frames-aged",
    /// A frame was found written, and its mappings became read-only so that the next write is seen.
    FrameCleaned = "frames-cleaned",
    /// INVLPG.
    Invlpg = "invlpgs",
    /// A plan asked for all of the TLB.
    FlushAll = "flush-all",
    /// A plan asked for one page.
    FlushPage = "flush-page",
}

/// One number for each [`Counter`].
#[derive(Clone, Debug)]
pub struct MmuCounters([u64; Counter::ALL.len()]);

impl MmuCounters {
    pub(crate) const fn new() -> Self {
        Self([0; Counter::ALL.len()])
    }

    #[inline]
    pub(crate) fn add(&mut self, counter: Counter) {
        self.add_many(counter, 1);
    }

    #[inline]
    pub(crate) fn add_many(&mut self, counter: Counter, n: u64) {
        if let Some(count) = self.0.get_mut(counter as usize) {
            *count = count.wrapping_add(n);
        }
    }

    /// The number of one counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Every counter's name and number, in the order of [`Counter::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|counter| counter.name()).zip(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn names_fit_a_trace_record() {
        assert!(Counter::ALL.iter().all(|c| c.name().len() <= 16 && c.name().is_ascii()));
    }
}
