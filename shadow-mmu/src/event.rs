//! What happened: one event, one trace record; one counter each for the interesting ones.

use crate::addr::{Gpa, Gva, Hpa, Level};
use crate::pte::Spte;

/// Something the shadow MMU did, with exactly what a trace record of that kind needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// One step of a guest walk that was made for a fault or for the emulator.
    Walk {
        /// Level of the entry.
        level: Level,
        /// This walk set A or D in it.
        marked: bool,
        /// The address walked.
        gva: Gva,
        /// Where the entry is.
        entry: Gpa,
        /// The entry, after the walk.
        gpte: u64,
    },
    /// A shadow entry was written.
    Fill {
        /// Level of the entry.
        level: Level,
        /// It maps a page; else it names a table.
        leaf: bool,
        /// The address it was written for; 0 if it was written without an access.
        gva: Gva,
        /// Where the entry is.
        entry: Hpa,
        /// The entry.
        spte: Spte,
    },
    /// A shadow entry was cleared.
    Zap {
        /// Level of the entry.
        level: Level,
        /// Where the entry is.
        entry: Hpa,
        /// What it was.
        spte: Spte,
    },
    /// A guest frame became tracked.
    Track {
        /// The frame's first byte.
        frame: Gpa,
        /// Level of the table; `None` if the frame is watched for the caller's own reasons.
        level: Option<Level>,
        /// How many shadow entries lost their right to write.
        revoked: u64,
    },
    /// A guest frame is no longer tracked.
    Untrack {
        /// The frame's first byte.
        frame: Gpa,
    },
    /// The guest wrote an entry of a tracked table.
    PtWrite {
        /// Level at which the table is used.
        level: Level,
        /// Where the entry is.
        entry: Gpa,
        /// The entry before, if the caller of [`on_write_from`](crate::ShadowMmu::on_write_from) said so, else `None`.
        before: Option<u64>,
        /// The entry now.
        after: u64,
    },
    /// The returned plan will drop translations: one page, or all.
    Flush {
        /// The page, or `None` for all.
        page: Option<Gva>,
    },
    /// A shadow table came or went.
    Table {
        /// Its level.
        level: Level,
        /// It came.
        came: bool,
        /// The guest table (or region) it stands for.
        guest: Gpa,
        /// Its frame.
        table: Hpa,
    },
}

/// Receives events as they happen. `()` ignores them at no cost.
pub trait Observer {
    /// Whether anybody wants them. If not, the most frequent ones are not made: to put one together is a tenth of clearing an entry.
    #[inline]
    fn is_on(&self) -> bool {
        true
    }

    /// Called for each event, on hot paths: do no more than store a record.
    #[inline]
    fn event(&mut self, event: Event) {
        let _ = event;
    }
}

impl Observer for () {
    #[inline]
    fn is_on(&self) -> bool {
        false
    }
}
