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

impl Default for Policy {
    fn default() -> Self {
        Self { sync: SyncPolicy::WriteProtect, eager_fill: EagerFill::IfAccessed, reuse_detection: true }
    }
}
