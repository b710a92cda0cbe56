//! The shadow MMU: shadow page tables for an x86 guest without EPT.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;

mod access;
mod addr;
mod audit;
mod controls;
mod counters;
mod event;
mod fill;
mod flush;
mod frames;
mod links;
mod mem;
mod mmu;
mod open;
mod policy;
mod pool;
mod propagate;
mod pte;
mod report;
mod role;
mod root;
mod stop;
mod table;
#[cfg(test)]
mod tests;
mod walk;
mod write;

pub use access::{Access, AccessKind, GuestFault, Perms, PfErr, Privilege};
pub use addr::{Gfn, Gpa, Gva, Hpa, Hva, Level, PAGE_SHIFT, PAGE_SIZE, Pfn};
pub use audit::AuditError;
pub use controls::{ControlFault, ControlWrite, Controls, PagingCtx, PagingMode, cr0, cr4, efer};
pub use counters::{Counter, MmuCounters};
pub use event::{Event, Observer};
pub use flush::FlushPlan;
pub use mem::{CmpxchgError, GfnKind, GuestMem, Refused, TableMem};
pub use mmu::{Config, ConfigError, Fault, Outcome, Root, ShadowMmu, TranslateError, WriteKind};
pub use policy::{EagerFill, Policy, SyncPolicy};
pub use pool::PageId;
pub use propagate::{Cause, Leaf, propagate};
pub use pte::{Flat, GuestFormat, GuestPte, Legacy32, Spte};
pub use report::{GuestStep, GuestWalk, ShadowStep, ShadowWalk};
pub use role::{Key, Role};
pub use stop::VmStop;
