//! The shadow MMU: page tables for an x86 guest whose CPU has no nested paging.
//!
//! The guest keeps page tables as it likes, in *guest-physical* memory. The CPU never sees them. It walks *shadow* tables, which
//! this library writes: 4-level tables that map the guest's virtual addresses to the *host's* frames, with no more rights than
//! the guest gave. The library is pure: no globals, no assembly, no allocation after [`ShadowMmu::new`], and the world is reached
//! through two traits, [`GuestMem`] and [`TableMem`]. So everything here runs under `cargo test`.
//!
//! # Words
//! - *gva, gpa, gfn* guest virtual address, guest physical address, guest frame number; *hpa, pfn* the host's.
//! - *gpte, spte* an entry of a guest's or a shadow table. `L1` tables hold 4 KiB leaves, `L4` is the root's level.
//! - *shadow page* one shadow table. Its [`Key`] is the guest table it stands for and its [`Role`]: everything that decides what
//!   its entries may hold. Guest tables of 1024 entries have several shadow pages, their *quadrants*. A *direct* page stands for
//!   a run of frames instead: a part of a large page, or of everything while paging is off. *Glue* pages are levels of the
//!   shadow that the guest's format does not have as tables; of PAE paging one stands for the four latched PDPTEs.
//! - *tracked* frame: a guest table with a shadow, or a frame the caller watches; no spte grants writes to it.
//! - *rmap* reverse map, from a gfn to the sptes that map it.
//! - *hidden fault* one that only completes the shadow; *true fault* one that the guest must see.
//!
//! # What happens
//! | The guest | calls | which |
//! |---|---|---|
//! | faults | [`ShadowMmu::on_fault`] | walks the guest's tables, sets A and D, links shadow pages, fills one leaf |
//! | writes a tracked table | [`ShadowMmu::on_write`] | lets every shadow of that table follow, entry by entry |
//! | loads CR3, CR0, CR4 | [`ShadowMmu::load_controls`] | finds or makes the root |
//! | executes INVLPG | [`ShadowMmu::on_invlpg`] | says what must leave the TLB |
//!
//! Every call returns a [`FlushPlan`], and every leaf is computed by one pure function, [`propagate`](fn@propagate).
//!
//! [`second`] builds the tables of the *other* way from the same memory: EPT and NPT, where the CPU walks the guest's own tables.
//!
//! # Invariants
//! Checked by [`ShadowMmu::audit`], each broken on purpose by a test; numbers stand in the code where they are upheld.
//! - **I1** A present leaf maps only memory of this VM.
//! - **I2** An spte grants no more than the guest's tables and the memory behind them.
//! - **I3** A leaf is present only if A is set in every gpte on the way, and writable only if D is set in the last.
//! - **I4** A tracked frame has no writable spte, and no TLB entry that grants writes.
//! - **I5** Only L1 pages go out of sync, and only while nobody watches their frame. What they hold was right at some time since the
//!   guest last flushed it; so I2 and I3 hold for them as they held then. I4 does not count their frames as tracked.
//! - **I6** The reverse map is exact. **I7** Parent links are exact.
//! - **I8** The current root is pinned. Pages are reserved before any is used, so no fill fails half-way.
//! - **I9** There is one live page for a key.
//! - **I10** Whatever must leave the TLB is in the returned plan. A lost right may stay until the guest's own flush, as on the
//!   CPU; epochs remember it, so that the two cases where that would be wrong (a frame becomes tracked, a table frame is used
//!   again) flush.
//! - **I11** The hypervisor's window is the same in every root, and no guest entry lies in it.
//! - **I12** Work per call is bounded: no recursion, no loop that waits for the guest, a pool of fixed size.
//! - **I13** A leaf is present only if its frame counts as accessed, and writable only if it counts as written. A frame that is not
//!   resident has no leaf, and a table in it no shadow.
//!
//! # Reading
//! Adams and Agesen, *A Comparison of Software and Hardware Techniques for x86 Virtualization*, 2006, for true and hidden faults;
//! Linux `Documentation/virt/kvm/x86/mmu.rst` for roles and rmaps; Intel SDM volume 3A, chapter 4, for paging itself.
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
mod reclaim;
mod report;
mod role;
mod root;
pub mod second;
mod stop;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod vtlb;
mod walk;
mod window;
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
pub use policy::{EagerFill, Policy, PolicyError, SyncPolicy};
pub use pool::PageId;
pub use propagate::{Cause, Leaf, propagate};
pub use pte::{Flat, GuestFormat, GuestPte, Legacy32, Pae, Spte};
pub use reclaim::FrameUse;
pub use report::{GuestStep, GuestWalk, ShadowStep, ShadowWalk};
pub use role::{Key, Role};
pub use stop::VmStop;
pub use window::{CodeOutcome, CodePage};
