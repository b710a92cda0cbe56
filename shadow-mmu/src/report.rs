//! Walks as values, for reports, the demo and the debugger: the guest's tables beside the shadow's.

use core::fmt;

use crate::access::{Access, AccessKind, Privilege};
use crate::addr::{Gpa, Gva, Hpa, Level};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::huge::BLOCK_BYTES;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{Flat, GuestFormat, GuestPte, Legacy32, Long4, Long5, Pae, Spte, entry_gpa};
use crate::table::WINDOW;
use crate::walk::{MAX_GUEST_LEVELS, frame_in_leaf};

/// One guest entry on the way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestStep {
    /// Its level.
    pub level: Level,
    /// Where it is.
    pub entry: Gpa,
    /// What it holds, of a PDPTE of PAE paging what was latched; `None` if no memory is there.
    pub gpte: Option<u64>,
}

/// The guest entries on the way to an address, from the top down, whatever they allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestWalk {
    steps: [Option<GuestStep>; MAX_GUEST_LEVELS],
    /// Where the address leads, if the tables lead anywhere.
    pub gpa: Option<Gpa>,
}

/// One shadow entry on the way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowStep {
    /// Its level.
    pub level: Level,
    /// Where it is.
    pub entry: Hpa,
    /// What it holds.
    pub spte: Spte,
}

/// The shadow entries on the way to an address, from the root down, as the CPU would read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowWalk {
    steps: [Option<ShadowStep>; MAX_GUEST_LEVELS],
    /// Where the address leads, if the tables lead anywhere.
    pub hpa: Option<Hpa>,
}

impl GuestWalk {
    /// The steps, from the top down.
    pub fn steps(&self) -> impl Iterator<Item = &GuestStep> {
        self.steps.iter().flatten()
    }

    /// The last entry read: the one that decided.
    #[must_use]
    pub fn last(&self) -> Option<&GuestStep> {
        self.steps().last()
    }
}

impl ShadowWalk {
    /// The steps, from the root down.
    pub fn steps(&self) -> impl Iterator<Item = &ShadowStep> {
        self.steps.iter().flatten()
    }

    /// The last entry read: the one that decided.
    #[must_use]
    pub fn last(&self) -> Option<&ShadowStep> {
        self.steps().last()
    }
}

impl fmt::Display for GuestWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.steps() {
            match step.gpte {
                Some(gpte) => write!(f, "{} gpa={} gpte={gpte:#x}  ", step.level, step.entry)?,
                None => write!(f, "{} gpa={} no memory  ", step.level, step.entry)?,
            }
        }
        match self.gpa {
            Some(gpa) => write!(f, "-> gpa={gpa}"),
            None => f.write_str("-> nowhere"),
        }
    }
}

impl fmt::Display for ShadowWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.steps() {
            write!(f, "{} hpa={} spte={}  ", step.level, step.entry, step.spte)?;
        }
        match self.hpa {
            Some(hpa) => write!(f, "-> hpa={hpa}"),
            None => f.write_str("-> nowhere"),
        }
    }
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// The guest's entries on the way to `gva`. Reads only.
    #[must_use]
    pub fn guest_walk(&self, gva: Gva) -> GuestWalk {
        match self.ctx.mode {
            PagingMode::Off => self.guest_steps::<Flat>(gva),
            PagingMode::Legacy32 => self.guest_steps::<Legacy32>(gva),
            PagingMode::Pae => self.guest_steps::<Pae>(gva),
            PagingMode::Long4 => self.guest_steps::<Long4>(gva),
            PagingMode::Long5 => self.guest_steps::<Long5>(gva),
        }
    }

    fn guest_steps<F: GuestFormat>(&self, gva: Gva) -> GuestWalk {
        let mut walk = GuestWalk { steps: [None; MAX_GUEST_LEVELS], gpa: None };
        if F::LEVELS == 0 {
            walk.gpa = Some(Gpa::new(gva.raw()));
            return walk;
        }
        let mut places = walk.steps.iter_mut();
        if self.ctx.mode == PagingMode::Pae
            && let Some(place) = places.next()
        {
            let (entry, gpte) = (self.ctx.pdpte_gpa(gva.raw() >> 30), Some(self.ctx.pdpte(gva)));
            *place = Some(GuestStep { level: Level::L3, entry, gpte });
        }
        let Some(mut table) = F::top(&self.ctx, gva) else { return walk };
        let levels = (1..=F::LEVELS).rev().filter_map(Level::from_number);
        for (place, level) in places.zip(levels) {
            let entry = entry_gpa::<F>(table, level, gva);
            let gpte = F::read(&self.mem, entry);
            *place = Some(GuestStep { level, entry, gpte });
            match gpte.map(|raw| F::decode(raw, level, &self.ctx)) {
                Some(GuestPte::Table { gfn, .. }) => table = gfn,
                Some(GuestPte::Leaf { gfn, .. }) => {
                    walk.gpa = Some(frame_in_leaf::<F>(gfn, level, gva).base().add(gva.offset()));
                    break;
                }
                _ => break,
            }
        }
        walk
    }

    /// The shadow's entries on the way to `gva` for the guest's supervisor. Reads only, and only what the CPU would read.
    #[must_use]
    pub fn shadow_walk(&self, gva: Gva) -> ShadowWalk {
        self.shadow_walk_for(gva, Privilege::Supervisor)
    }

    /// The same in the view of any privilege.
    #[must_use]
    pub fn shadow_walk_for(&self, gva: Gva, privilege: Privilege) -> ShadowWalk {
        let mut walk = ShadowWalk { steps: [None; MAX_GUEST_LEVELS], hpa: None };
        let Some(root) = self.root_for(privilege) else { return walk };
        let mut table = root.table;
        for (place, level) in walk.steps.iter_mut().zip([Level::L4, Level::L3, Level::L2, Level::L1]) {
            let slot = gva.slot(level);
            let spte = self.tables.load(table, slot);
            *place = Some(ShadowStep { level, entry: table.base().add((slot as u64) << 3), spte });
            // Below the hypervisor's own entries are no tables of this machine.
            if !spte.present() || level == Level::L4 && WINDOW.contains(&slot) {
                break;
            }
            table = spte.pfn();
            if level == Level::L1 {
                walk.hpa = Some(table.base().add(gva.offset()));
            } else if level == Level::L2 && spte.is_large() {
                walk.hpa = Some(table.base().add(gva.raw() & BLOCK_BYTES.wrapping_sub(1)));
                break;
            }
        }
        walk
    }

    /// Where the real CPU goes with an access of the guest through the shadow as it is now, without a TLB; `None` if it faults. The
    /// CPU is set up as [the caller owes](crate#what-the-caller-owes), and has no keys for supervisor pages
    /// ([`Spte::UNREADABLE_KEY`]). Reads only: for tests and reports.
    #[must_use]
    pub fn shadow_access(&self, gva: Gva, access: Access) -> Option<Hpa> {
        let walk = self.shadow_walk_for(gva, access.privilege);
        let (hpa, leaf) = (walk.hpa?, walk.last()?.spte);
        let ring3 = access.is_user() || self.ctx.mode.is_long();
        let reached = match access.kind {
            _ if ring3 => leaf.user(),
            AccessKind::Fetch => !(self.ctx.smep && leaf.user()),
            AccessKind::Read | AccessKind::Write => {
                !(self.ctx.smap && leaf.user()) || access.privilege == Privilege::SupervisorAc
            }
        };
        let granted = match access.kind {
            AccessKind::Read => true,
            AccessKind::Write => leaf.writable(),
            AccessKind::Fetch => leaf.executable(),
        };
        (reached && granted).then_some(hpa)
    }
}
