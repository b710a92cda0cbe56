//! The shadow MMU: page tables for an x86 guest whose CPU has no nested paging.
//!
//! The guest keeps page tables as it likes, in *guest-physical* memory. The CPU never sees them. It walks *shadow* tables, which
//! this library writes: 4-level tables that map the guest's virtual addresses to the *host's* frames, with no more rights than
//! the guest gave. 32-bit and 64-bit guests, in every paging mode there is. The library is pure: no globals, no assembly, no
//! allocation after [`ShadowMmu::new`], and the world is reached through two traits, [`GuestMem`] and [`TableMem`]. So everything here
//! runs under `cargo test`.
//!
//! # From outside
//! ```
//! use std::cell::Cell;
//!
//! use shadow_mmu::{
//!     Access, AccessKind, CmpxchgError, Config, ControlWrite, Controls, Fault, Gfn, GfnKind, Gpa, GuestMem, Gva, Level,
//!     Outcome, Pfn, Privilege, Refused, ShadowMmu, Spte, TableMem, WINDOW, cr0, cr4, efer,
//! };
//!
//! /// Guest memory: 16 frames; frame `n` of the guest is frame `0x100 + n` of the host.
//! struct Ram(Vec<Cell<u64>>);
//!
//! impl Ram {
//!     fn put(&self, gpa: u64, entry: u64) {
//!         self.0[gpa as usize / 8].set(entry);
//!     }
//! }
//!
//! impl GuestMem for Ram {
//!     fn kind(&self, gfn: Gfn) -> GfnKind {
//!         if gfn.raw() < 16 { GfnKind::Ram(Pfn::new(0x100 + gfn.raw())) } else { GfnKind::Hole }
//!     }
//!     fn read_u64(&self, gpa: Gpa) -> Option<u64> {
//!         self.0.get(gpa.raw() as usize / 8).map(Cell::get)
//!     }
//!     fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
//!         let cell = self.0.get(gpa.raw() as usize / 8).ok_or(CmpxchgError::NoMemory)?;
//!         if cell.get() != old {
//!             return Err(CmpxchgError::Changed);
//!         }
//!         cell.set(new);
//!         Ok(())
//!     }
//!     // Entries of 4 bytes are those of 2-level paging, which this guest does not use.
//!     fn read_u32(&self, _: Gpa) -> Option<u32> {
//!         None
//!     }
//!     fn cmpxchg_u32(&self, _: Gpa, _: u32, _: u32) -> Result<(), CmpxchgError> {
//!         Err(CmpxchgError::NoMemory)
//!     }
//! }
//!
//! /// The host frames 0 to 31, which hold the shadow tables.
//! struct Tables(Vec<[Spte; 512]>);
//!
//! /// What the hypervisor has in its window, in every root.
//! const OURS: Spte = Spte::from_raw(0x9999_0003);
//!
//! impl TableMem for Tables {
//!     fn load(&self, table: Pfn, index: usize) -> Spte {
//!         self.0[table.raw() as usize][index]
//!     }
//!     fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
//!         // A real one looks here whose frame `spte` names, and refuses what is not this VM's.
//!         self.0[table.raw() as usize][index] = spte;
//!         Ok(())
//!     }
//!     fn clear(&mut self, table: Pfn) {
//!         self.0[table.raw() as usize].fill(Spte::ABSENT);
//!     }
//!     fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
//!         self.clear(table);
//!         self.0[table.raw() as usize][WINDOW].fill(OURS);
//!         Ok(())
//!     }
//!     fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> {
//!         self.clear(table);
//!         Ok(())
//!     }
//! }
//!
//! // The guest's tables: PML4 in frame 1, PDPT in 2, page directory in 3, page table in 4. Each entry: present, writable, user.
//! // The page at 0x5000 is frame 8.
//! let ram = Ram(vec![Cell::new(0); 16 * 512]);
//! for (gpa, entry) in [(0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007), (0x4000 + 5 * 8, 0x8007)] {
//!     ram.put(gpa, entry);
//! }
//! let tables = Tables(vec![[Spte::ABSENT; 512]; 32]);
//! let config = Config::new((0..32).map(Pfn::new).collect(), 16);
//! let mut mmu = ShadowMmu::new(ram, tables, (), config)?;
//!
//! // It enters long mode. Now the real CR3 must be the root for its privilege.
//! let controls = Controls {
//!     cr0: cr0::PE | cr0::PG | cr0::WP,
//!     cr3: 0x1000,
//!     cr4: cr4::PAE,
//!     efer: efer::LME | efer::NXE,
//!     pkru: 0,
//! };
//! let plan = mmu.load_controls(controls, ControlWrite::Reset).expect("a CPU takes these");
//! assert!(plan.is_all(), "the TLB must be emptied: the load of CR3 does that");
//! let root = mmu.root_for(Privilege::User).expect("controls are loaded");
//!
//! // It writes to 0x5000. The shadow is empty, so the real CPU faults, and whoever catches the fault asks:
//! let gva = Gva::new(0x5000);
//! let access = Access { kind: AccessKind::Write, privilege: Privilege::User };
//! let (outcome, plan) = mmu.on_fault(Fault { gva, access });
//! assert_eq!(outcome, Outcome::Resume);
//! assert!(plan.is_none(), "nothing was there that the TLB could remember");
//! // The CPU finds it now, from the root down, and the guest's entries have A and D, as after a walk of the CPU.
//! let walk = mmu.shadow_walk_for(gva, Privilege::User);
//! assert_eq!(walk.steps().next().unwrap().entry, root.table.base());
//! let leaf = walk.last().unwrap();
//! assert_eq!((leaf.level, leaf.spte.pfn(), leaf.spte.writable()), (Level::L1, Pfn::new(0x108), true));
//! assert_eq!(mmu.mem().read_u64(Gpa::new(0x4028)), Some(0x8067));
//!
//! // Its kernel makes the page read-only. The page table is tracked, so that a write to it through any mapping faults with
//! // `Outcome::EmulateWrite`; the emulator stores the bytes, and tells:
//! assert!(mmu.write_kind(Gfn::new(4)).page_table);
//! mmu.mem().put(0x4028, 0x8065);
//! let plan = mmu.on_write(Gpa::new(0x4028), 8);
//! assert!(plan.is_none(), "a CPU may remember what it could, until INVLPG");
//! let leaf = *mmu.shadow_walk_for(gva, Privilege::User).last().unwrap();
//! assert!(leaf.spte.present() && !leaf.spte.writable());
//!
//! // INVLPG, and the next write is the guest's own fault: present, write, user.
//! let plan = mmu.on_invlpg(gva);
//! assert!(plan.pages().eq([gva]), "execute INVLPG of this page");
//! let (outcome, _plan) = mmu.on_fault(Fault { gva, access });
//! assert!(matches!(outcome, Outcome::Inject(fault) if fault.error.bits() == 7));
//! mmu.audit().expect("every invariant holds");
//! # Ok::<(), shadow_mmu::ConfigError>(())
//! ```
//!
//! # Words
//! - *gva, gpa, gfn* guest virtual address, guest physical address, guest frame number; *hpa, pfn* the host's. Addresses are in
//!   bytes, frame numbers in units of 4 KiB.
//! - *gpte, spte* an entry of a guest's or a shadow table. `L1` tables hold 4 KiB leaves, `L4` is the shadow root's level.
//! - *shadow page* one shadow table. Its [`Key`] is the guest table it stands for and its [`Role`]: everything that decides what
//!   its entries may hold. Guest tables of 1024 entries have several shadow pages, their *quadrants*. A *direct* page stands for
//!   a run of frames instead: a part of a large page, or of everything while paging is off. *Glue* pages are levels of the
//!   shadow that the guest's format does not have as tables; of PAE paging one stands for the four latched PDPTEs. A *fold* page
//!   stands for a PML4 of 5-level paging, which shares the root with others.
//! - *view* whom a root and the pages below it serve: [`View`].
//! - *window* the entries of a root that are the hypervisor's own: [`WINDOW`].
//! - *tracked* frame: a guest table with a shadow, or a frame the caller watches; no spte grants writes to it.
//! - *rmap* reverse map, from a gfn to the sptes that map it.
//! - *large leaf* an spte of level 2 that maps 2 MiB, a *block*; there are some with [`Policy::huge`] only.
//! - *hidden fault* one that only completes the shadow; *true fault* one that the guest must see.
//!
//! # What happens
//! | The guest | calls | which |
//! |---|---|---|
//! | faults | [`ShadowMmu::on_fault`] | walks the guest's tables, sets A and D, links shadow pages, fills one leaf |
//! | writes a tracked table | [`ShadowMmu::on_write`] | lets every shadow of that table follow, entry by entry |
//! | loads CR3, CR0, CR4, EFER, PKRU | [`ShadowMmu::load_controls`] | finds or makes the roots |
//! | changes its privilege | [`ShadowMmu::root_for`] | names the root to load |
//! | executes INVLPG | [`ShadowMmu::on_invlpg`] | says what must leave the TLB |
//!
//! Every call returns a [`FlushPlan`], and every leaf is computed by one pure function, [`propagate`](fn@propagate).
//!
//! | Guest format | [`PagingMode`] | while | pages |
//! |---|---|---|---|
//! | [`Flat`] | `Off` | CR0.PG = 0 | of any size, identity |
//! | [`Legacy32`] | `Legacy32` | CR4.PAE = 0 | 4 KiB; 4 MiB with CR4.PSE (PSE-36) |
//! | [`Pae`] | `Pae` | CR4.PAE = 1, EFER.LME = 0 | 4 KiB, 2 MiB |
//! | [`Long4`] | `Long4` | CR4.PAE = 1, EFER.LME = 1, CR4.LA57 = 0 | 4 KiB, 2 MiB, 1 GiB |
//! | [`Long5`] | `Long5` | CR4.PAE = 1, EFER.LME = 1, CR4.LA57 = 1 | 4 KiB, 2 MiB, 1 GiB |
//!
//! # What the caller owes
//! 1. *Order.* [`ShadowMmu::new`]; [`load_controls`](ShadowMmu::load_controls) with [`ControlWrite::Reset`]; from then on every
//!    event of the guest as it happens, one at a time.
//! 2. *Plans.* Each [`FlushPlan`] is executed before the guest runs again: INVLPG of its page, or a load of CR3. Plans of several
//!    calls can be [joined](FlushPlan::join). A plan is about the TLB, whichever root is loaded. Shadow entries are never global,
//!    and the host uses no PCID.
//! 3. *Roots.* The real CR3 is [`root_for`](ShadowMmu::root_for) the privilege that the guest runs with: look after each
//!    `load_controls`, and in long mode after each change of privilege (SYSCALL, SYSRET, interrupt, IRET) and, while CR4.SMAP is
//!    set, of EFLAGS.AC. The roots stay valid until the next `load_controls`, and all of them follow every event.
//! 4. *Rings.* A guest that is not in long mode runs its kernel in ring 1 and its user code in ring 3, in compatibility mode. A guest in
//!    long mode runs in ring 3 altogether.
//! 5. *Real control bits.* While the guest runs: CR0.WP = 1, EFER.NXE = 1, CR4.PGE = CR4.PCIDE = 0, CR4.LA57 = 0, CR4.PKE = 0 or
//!    key 0 allowed, CR4.PKS = 0 or by IA32_PKRS no access with key [`Spte::UNREADABLE_KEY`], but with all others. In ring 1 the real CR4.SMEP and CR4.SMAP are the guest's while it pages, and clear while it does not; the real
//!    EFLAGS.AC is the guest's. In ring 3 the real ones mean nothing: the views hold SMEP, SMAP, WP and the keys.
//! 6. *Privilege.* The [`Access`] of a fault has the guest's own privilege, AC included: see [`Privilege`]. The real error code does not
//!    tell it (rings 1 and 3 excepted, as long as SMAP is off): [`Access::from_error`] and [`Access::with_privilege`]. What the CPU
//!    reads for itself, descriptors and the TSS, is [`Privilege::IMPLICIT`].
//!    With [`Policy::mark_absent`] a real error code may have [`PfErr::RESERVED`]: ask [`ShadowMmu::known_absent`] first, or do not.
//! 7. *Writes.* Whoever writes guest memory other than by the guest's own mapping (an emulator, a device, a loader) calls
//!    [`on_write`](ShadowMmu::on_write) after the bytes are there, for each frame touched. For frames that are not tracked the call does
//!    nothing. A and D bits that this library sets need no call.
//! 8. *Memory.* [`GuestMem::kind`] does not change its answer for a frame that may be mapped; [`ShadowMmu::take_frame`] says how it
//!    can. No frame of the host stands behind two guest frames: what is written through the one would be unseen in the other.
//! 9. *Addresses.* An address that is not canonical raises #GP or #SS on a CPU and no page fault. Where an emulator asks anyway, the
//!    answer is [`Outcome::NonCanonical`] or [`TranslateError::NonCanonical`]. In the 32-bit modes an address above 4 GiB is
//!    [`VmStop::AddressTooWide`].
//!
//! # What the guest sees
//! What the SDM (volume 3A, chapter 4) says of a CPU without PCID, exactly:
//! - *Faults.* Entries are judged from the top down, and the first that is not present or has a reserved bit set decides; rights are
//!   judged last, those of all levels together. The error code has every bit that a CPU sets: [`PfErr`].
//! - *Reserved bits* are those of a CPU with [`Config::maxphyaddr`] and [`Config::gib_pages`]. The address of a 4 MiB page has at most
//!   40 bits.
//! - *A and D.* A walk for an access that the guest's tables allow sets A in every entry that it used and, for a write, D in the last,
//!   by compare-exchange. That is so whatever the [`Outcome`], `Inject` excepted: a walk that ends in a fault sets none, not even A in
//!   the entries above. (The SDM leaves that open; KVM's and Bochs' walkers do so, too.)
//!   An entry that somebody changes between the walk's read and its compare-exchange is not marked, and the walk is made again. If that
//!   goes on, the answer is `Resume`; of `translate`, which cannot say so, it is [`VmStop::Internal`] with invariant 12.
//!   [`translate`](ShadowMmu::translate) sets them, [`probe`](ShadowMmu::probe) does not. Nothing else ever does.
//! - *PDPTEs* of PAE paging are read by the loads that the SDM names (4.4.1) and kept until the next of them. If one is not valid, the
//!   load is refused ([`ControlFault::GeneralProtection`]), and nothing has changed. Where no memory is they read as all ones, which is
//!   not valid. CR3 itself may name anything: a table that is not there stops the walk only, see below.
//! - *What may be old.* After a write of an entry, the guest may see what the entry said since it last flushed that address, until it
//!   flushes again. Where from depends on the [`SyncPolicy`]: under `WriteProtect` from the real TLB only, as the shadow has followed
//!   when [`on_write`](ShadowMmu::on_write) returns; under `Unsync` and `VirtualTlb` also from the shadow. INVLPG ends it for the
//!   page (4 KiB or large) that is mapped there, a load of CR3, even of the same value, and every other load that empties a TLB ends
//!   it for all pages, global ones included (but see [`Policy::keep_global`]). Where a large page has taken the place of small ones,
//!   INVLPG ends only the small one at its address, as on a CPU: the others need their own, or a load of CR3. What is old is never more than was allowed, A and D considered, at some time in between.
//!
//! [`shadow_access`](ShadowMmu::shadow_access) says what the real CPU would do with an access, for tests without such a CPU.
//!
//! # What cannot be shadowed
//! - Tables outside memory (holes and devices), and in ROM if A or D is to be set in them: [`VmStop::TableOutsideMemory`]. Entries are
//!   marked from the top down, and those above that one may be marked by then.
//! - Addresses in the [`WINDOW`]. A guest may leave them unmapped: then it gets its own page faults there. The first access that its
//!   tables allow is [`VmStop::InWindow`].
//! - 5-level addresses that 48 bits do not hold: [`VmStop::BeyondHost`], likewise. The real CPU has 4 levels and raises #GP for
//!   them, so the caller sees them only if it decodes that instruction. [`ShadowMmu::translate`] and [`ShadowMmu::probe`] walk the
//!   guest's own tables only, and know no such bounds.
//! - Pages that may be fetched from but not read (SMAP without SMEP in a kernel's view; protection keys): [`Outcome::EmulateFetch`].
//! - CR4.PCIDE: [`ControlFault::Unsupported`].
//!
//! [`second`] builds the tables of the *other* way from the same memory: EPT and NPT, where the CPU walks the guest's own tables.
//!
//! # Invariants
//! Checked by [`ShadowMmu::audit`], each broken on purpose by a test; numbers stand in the code where they are upheld.
//! - **I1** A present leaf maps only memory of this VM.
//! - **I2** An spte grants no more than the guest's tables and control bits do to those whom its view serves, and the memory behind.
//! - **I3** A leaf is present only if A is set in every gpte on the way, and writable only if D is set in the last.
//! - **I4** A tracked frame has no writable spte, and no TLB entry that grants writes.
//! - **I5** Only L1 pages go out of sync, and only while nobody watches their frame. What they hold was right at some time since the
//!   guest last flushed it; so I2 and I3 hold for them as they held then: an entry is what the table's snapshot says, or marked as
//!   made since. I4 does not count their frames as tracked.
//! - **I6** The reverse map is exact. **I7** Parent links are exact.
//! - **I8** The current roots, one for each view, are pinned. Pages are reserved before any is used, so no fill fails half-way.
//! - **I9** There is one live page for a key.
//! - **I10** Whatever must leave the TLB is in the returned plan. A lost right may stay until the guest's own flush, as on the
//!   CPU; epochs remember it, so that the two cases where that would be wrong (a frame becomes tracked, a table frame is used
//!   again) flush.
//! - **I11** The hypervisor's [window](WINDOW) is the same in every root, and no guest entry lies in it.
//! - **I12** Work per call is bounded: no recursion, no loop that waits for the guest, a pool of fixed size.
//! - **I13** A leaf is present only if its frame counts as accessed, and writable only if it counts as written. A frame that is not
//!   resident has no leaf, and a table in it no shadow.
//! - **I14** A virtual TLB that keeps global pages over CR3 loads finds all other leaves: each is in a page that is in the list of such.
//! - **I15** A [gap](Spte::GAP) stands for a guest entry that is not present, in a table whose writes are all followed.
//! - **I16** A large leaf maps a *clear* block: 512 frames of RAM from a border of 2 MiB on, one behind the other in the host as in the
//!   guest, none of them a table or watched, all accessed and written. So what the others say of a frame and its leaves holds for it.
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
mod ahead;
mod audit;
mod burst;
mod config;
mod controls;
mod counters;
mod event;
mod fill;
mod flush;
mod fold;
mod frames;
mod gap;
mod huge;
mod links;
mod mem;
mod mmu;
mod open;
mod outcome;
mod pages;
mod path;
mod policy;
mod pool;
mod prefetch;
mod propagate;
mod pte;
mod reclaim;
mod report;
mod role;
mod root;
pub mod second;
mod stop;
mod straight;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod vtlb;
mod walk;
mod window;
mod write;

pub use access::{Access, AccessKind, GuestFault, Perms, PfErr, Privilege};
pub use addr::{Gfn, Gpa, Gva, Hpa, Hva, Level, PAGE_SHIFT, PAGE_SIZE, Pfn};
pub use audit::{AuditError, Violation};
pub use config::{Config, ConfigError};
pub use controls::{ControlFault, ControlWrite, Controls, KeyRights, PagingCtx, PagingMode, cr0, cr4, efer};
pub use counters::{Counter, MmuCounters};
pub use event::{Event, Observer};
pub use flush::FlushPlan;
pub use mem::{CmpxchgError, FRAME_BYTES, GfnKind, GuestMem, Refused, TableMem};
pub use mmu::ShadowMmu;
pub use outcome::{Fault, Outcome, Root, TranslateError, WriteKind};
pub use policy::{EagerFill, Policy, PolicyError, SyncPolicy};
pub use pool::PageId;
pub use propagate::{Cause, Leaf, Rules, propagate};
pub use pte::{Flat, GuestFormat, GuestPte, Legacy32, Long, Long4, Long5, Pae, Spte};
pub use reclaim::FrameUse;
pub use report::{GuestStep, GuestWalk, ShadowStep, ShadowWalk};
pub use role::{Key, Role};
pub use stop::VmStop;
pub use table::WINDOW;
pub use view::{Roots, View};
pub use window::{CodeOutcome, CodePage, Patches, Place};
