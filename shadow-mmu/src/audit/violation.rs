//! Everything that an audit can report, as one table: `tests/breaks` has a test for each line, and does not build without.

macro_rules! violations {
    ($($variant:ident: $invariant:literal, $text:literal;)*) => {
        /// A check of [`ShadowMmu::audit`](crate::ShadowMmu::audit) or [`SecondLevel::audit`](crate::second::SecondLevel::audit)
        /// that failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Violation { $(#[doc = concat!("I", $invariant, ": ", $text, ".")] $variant,)* }

        impl Violation {
            /// Every check there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The invariant that does not hold: 4 for I4 and so on.
            #[must_use]
            pub const fn invariant(self) -> u8 {
                match self { $(Self::$variant => $invariant,)* }
            }

            /// What is wrong, in words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

violations! {
    NoMemory: 1, "a leaf maps what is no memory";
    ForeignFrame: 1, "a leaf maps another frame than the guest's memory has";
    UnmappedByGuest: 2, "a leaf stands for a guest entry that maps nothing";
    OtherFrame: 2, "a leaf maps another frame than the guest's entry";
    OtherRights: 2, "a leaf grants other rights than the guest's entry";
    RomWritable: 2, "read-only memory is writable";
    AbsentNotZero: 2, "an absent entry is not zero";
    OtherTable: 2, "an entry names the shadow of another table";
    OtherFold: 2, "another PML4 is folded in";
    PlaceNamesTable: 2, "a page of the virtual TLB names one of a tracked table";
    CodeRights: 2, "shadow code has other rights than to be fetched";
    CodeUnmapped: 2, "shadow code stands for a guest entry that maps nothing";
    CodeOtherFrame: 2, "shadow code stands for another frame than the guest's entry";
    CodeForbidden: 2, "shadow code can be fetched where the guest forbids it";
    CodeMisplaced: 2, "shadow code is linked in the wrong place";
    LeafBeforeA: 3, "a leaf is present while A is clear";
    WritableBeforeD: 3, "a leaf is writable while D is clear";
    TableUnused: 3, "a table is linked that the guest does not use";
    FoldUnused: 3, "a half is folded in that the guest does not use";
    CodeBeforeA: 3, "shadow code is present while A is clear";
    TrackedWritable: 4, "a tracked frame is writable";
    TablesMiscounted: 4, "the count of tables is wrong";
    UnsyncUnlisted: 5, "the list of tables out of sync is wrong";
    UnsyncUpper: 5, "a table above the leaves is out of sync";
    UnsyncNoTable: 5, "a frame that is no table, or watched, is out of sync";
    UnsyncTooMany: 5, "more tables are out of sync than there are snapshots";
    BitsDiffer: 6, "the table and its bookkeeping differ";
    RmapForeign: 6, "the reverse map names an entry that does not map the frame";
    RmapLacks: 6, "a leaf is missing in the reverse map";
    FreeNamed: 7, "a free page is named by an entry";
    LinkElsewhere: 7, "an entry names another table";
    ParentForeign: 7, "a parent does not name its child";
    ParentLacks: 7, "an entry is missing in the parents of its table";
    Nowhere: 7, "an index leads nowhere";
    PathElsewhere: 7, "the last path leads to another page than the tables";
    RootLinked: 8, "a root has parents";
    ViewRootless: 8, "a view has no root";
    RootGone: 8, "a current root was given up";
    RootOther: 8, "a current root is not that of the control registers";
    PlaceShared: 9, "two entries name one page of the virtual TLB";
    KeyLost: 9, "a live page is not found by its key";
    ChainForeign: 9, "a page is in the chain of another frame";
    KeyTwice: 9, "two pages have the same key";
    FreeNotEmpty: 10, "a free page has entries";
    PlanLeft: 10, "a flush plan was left behind";
    WindowUsed: 11, "a guest entry lies in the hypervisor's window";
    WindowsDiffer: 11, "two roots have different windows";
    PoolLists: 12, "the lists of the pool do not hold every page once";
    TooManyRoots: 12, "there are more roots than the policy allows";
    TableAway: 13, "a table is shadowed whose frame is not resident";
    FrameAway: 13, "a leaf maps a frame that is not resident";
    NotAccessed: 13, "a leaf maps a frame that does not count as accessed";
    NotWritten: 13, "a frame that does not count as written is writable";
    LeafUnlisted: 14, "a CR3 load would not find a leaf that it must drop";
    CodeUnlisted: 14, "a CR3 load would not find shadow code that it must drop";
    LocalUnlisted: 14, "the list of pages that a CR3 load looks at is wrong";
    GapUnwanted: 15, "a gap is not in the table, or not wanted";
    GapUnfollowed: 15, "a gap stands for an entry that the guest may write unseen";
    GapLies: 15, "a gap stands for an entry that is present";
    LargeElsewhere: 1, "a large leaf maps another block than the guest's memory has";
    BlockTracked: 4, "a frame of a clear block is a table or watched";
    LargeMisplaced: 6, "the bookkeeping of a large leaf stands for another entry";
    BlockForeign: 6, "the reverse map of a block names an entry that does not map it";
    BlockLacks: 6, "a large leaf is missing in the reverse map of its block";
    BlockAway: 13, "a frame of a clear block is not resident";
    BlockUnused: 13, "a frame of a clear block does not count as accessed and written";
    LargeUnlisted: 14, "a CR3 load would not find a large leaf that it must drop";
    LargeUnwanted: 16, "a large leaf is not wanted";
    LargeMisaligned: 16, "a large leaf maps no whole block";
    BlockNotClear: 16, "a large leaf maps a block that is not clear";
    BlockInPieces: 16, "a clear block is not RAM in one piece";
    SecondBeyond: 1, "second level: a leaf beyond the guest's frames";
    SecondForeign: 1, "second level: a leaf maps something else than the guest's memory";
    SecondMalformed: 2, "second level: an entry that the CPU refuses";
    SecondRom: 2, "second level: a leaf lets ROM be written";
    SecondDirty: 3, "second level: a read-only leaf is dirty";
    SecondWatched: 4, "second level: a watched frame is writable";
    SecondNowhere: 7, "second level: a link to no table";
    SecondMiscounted: 7, "second level: entries are miscounted";
    SecondOrphan: 7, "second level: a table without a parent";
    SecondUnnamed: 7, "second level: its parent does not name a table";
    SecondRoots: 8, "second level: not one root";
    SecondLost: 9, "second level: a table is not found at its place";
    SecondPool: 12, "second level: the pool lost a table";
}
