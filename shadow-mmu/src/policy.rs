//! Switches: values chosen per VM. A switch never changes what the guest sees, only what it costs.

/// What happens when the guest writes an entry of a tracked leaf table whose shadow entry is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EagerFill {
    /// Nothing; the next access fills by a hidden fault.
    Never,
    /// The shadow entry is made at once if the new guest entry has A set already: the guest says that it will be used, and
    /// nothing would be learnt from the fault. (lguest does the same for every entry.)
    IfAccessed,
}

/// How guest page tables are kept in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Every guest write to a page table traps. The reference.
    WriteProtect,
    /// The first write to a leaf table makes it writable; it is brought in step when the guest flushes. See `sync`.
    Unsync {
        /// Most tables that are out of sync at once, 1 to [`MAX_UNSYNC`](Self::MAX_UNSYNC); with one more the oldest is brought
        /// in step.
        tables: u16,
    },
    /// No table is tracked. The shadow is filled on a miss, and forgets what the guest flushes. See `vtlb`.
    VirtualTlb,
}

impl SyncPolicy {
    /// Most tables that can be out of sync at once.
    pub const MAX_UNSYNC: u16 = 1024;

    /// `unsync` with its usual bound.
    pub const UNSYNC: Self = Self::Unsync { tables: 32 };

    #[inline]
    pub(crate) const fn is_vtlb(self) -> bool {
        matches!(self, Self::VirtualTlb)
    }

    /// The bound on tables out of sync.
    pub(crate) fn unsync_limit(self) -> usize {
        match self {
            Self::WriteProtect | Self::VirtualTlb => 0,
            Self::Unsync { tables } => usize::from(tables.clamp(1, Self::MAX_UNSYNC)),
        }
    }
}

/// All switches of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How tables are kept in step.
    pub sync: SyncPolicy,
    /// What a write to a leaf entry does beyond dropping what is stale.
    pub eager_fill: EagerFill,
    /// Give up the shadow of a table that is written by user code, or by less than a whole entry, or that nothing links any
    /// more: it is probably data by now.
    pub reuse_detection: bool,
}

impl Policy {
    /// What a VM has that says nothing.
    pub const DEFAULT: Self =
        Self { sync: SyncPolicy::WriteProtect, eager_fill: EagerFill::IfAccessed, reuse_detection: true };
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}
