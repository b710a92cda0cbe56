//! The heart: from what the guest's entry says to what the shadow's entry is. Pure; every path computes leaves here.
//!
//! It never grants more than the guest does (I2), grants nothing while A is clear and no write while D is clear (I3), and no
//! write to a tracked frame (I4).

use crate::access::{Access, Perms, Privilege};
use crate::addr::Pfn;
use crate::controls::{KeyRights, PagingCtx};
use crate::pte::{GuestFormat, Spte};
use crate::role::Role;
use crate::view::View;

/// All that decides about a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The host frame behind the guest's.
    pub pfn: Pfn,
    /// Rights of the whole guest walk.
    pub perms: Perms,
    /// A is set in every entry of the walk.
    pub accessed: bool,
    /// D is set in the guest's leaf.
    pub dirty: bool,
    /// The frame is writable memory and nobody watches it.
    pub writable_frame: bool,
    /// What else the page's entries obey.
    pub rules: Rules,
}

/// What all leaves of a shadow page obey, besides their own guest entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whom the page serves.
    pub view: View,
    /// CR0.WP.
    pub wp: bool,
    /// CR4.SMEP.
    pub smep: bool,
    /// CR4.SMAP, and EFLAGS.AC does not suspend it. In [`View::Both`] the real CPU's own SMAP and AC must be the guest's.
    pub smap: bool,
    /// PKRU if protection keys are on, else 0.
    pub pkru: u32,
}

impl Rules {
    /// Those of a page of format `F` with `role`, while PKRU is `pkru`.
    #[inline]
    pub(crate) fn of<F: GuestFormat>(role: Role, pkru: u32) -> Self {
        let (view, pkru) = if F::SPLIT { (role.view(), if role.pke() { pkru } else { 0 }) } else { (View::Both, 0) };
        Self { view, wp: role.wp(), smep: role.smep(), smap: role.smap(), pkru }
    }

    /// Those of the pages that serve the view of `ctx`.
    #[inline]
    pub(crate) fn now<F: GuestFormat>(ctx: &PagingCtx) -> Self {
        let (view, pkru) = if F::SPLIT { (ctx.view, ctx.pkru) } else { (View::Both, 0) };
        Self { view, wp: ctx.wp, smep: ctx.smep, smap: ctx.smap && view != View::KernelAc, pkru }
    }
}

/// Why the entry is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This access must go on.
    Access(Access),
    /// The guest wrote its entry.
    GpteWrite,
}

/// Computes a shadow leaf.
///
/// While CR0.WP = 0 the supervisor may write read-only user pages, but the host's WP is always 1. In [`View::Both`], as KVM does,
/// the entry is made writable and supervisor-only for a supervisor's write, and goes back to read-only and user for a user's
/// access. Except under SMAP, which a supervisor page would escape: such writes must be emulated.
///
/// A page that may be fetched from but not read, for SMAP or its protection key, has no shadow entry: such fetches must be emulated.
#[must_use]
#[inline(always)] // Most of it is known where it is called.
pub fn propagate(leaf: Leaf, cause: Cause) -> Spte {
    if !leaf.accessed {
        return Spte::ABSENT;
    }
    let rules = leaf.rules;
    if rules.view != View::Both {
        return propagate_split(leaf);
    }
    let may_write = leaf.dirty && leaf.writable_frame;
    if rules.wp || leaf.perms.write() {
        let perms = Perms::new(leaf.perms.user(), leaf.perms.write() && may_write, leaf.perms.execute());
        return Spte::leaf(leaf.pfn, perms);
    }
    let supervisor_writes = match cause {
        Cause::Access(access) => access.is_write() && access.privilege != Privilege::User,
        Cause::GpteWrite => false,
    };
    let to_supervisor = may_write && (supervisor_writes && !rules.smap || !leaf.perms.user());
    let user = leaf.perms.user() && !to_supervisor;
    // A user page that became a supervisor page would escape SMEP.
    let execute = leaf.perms.execute() && !(rules.smep && to_supervisor && leaf.perms.user());
    Spte::leaf(leaf.pfn, Perms::new(user, to_supervisor, execute))
}

/// In the views of a guest that runs in ring 3 only, every page is a user page, with the rights of the one privilege served.
fn propagate_split(leaf: Leaf) -> Spte {
    let (rules, perms) = (leaf.rules, leaf.perms);
    let keys = KeyRights::of(rules.pkru, perms);
    let supervisor = rules.view != View::User;
    let readable = if supervisor { !(rules.smap && perms.user()) } else { perms.user() };
    if !readable || keys.no_access {
        return Spte::ABSENT;
    }
    let write = perms.write() && !keys.no_write || supervisor && !rules.wp;
    let execute = perms.execute() && !(supervisor && rules.smep && perms.user());
    Spte::leaf(leaf.pfn, Perms::new(true, write && leaf.dirty && leaf.writable_frame, execute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::AccessKind;

    /// Every leaf in every view, with every control bit, and a page's key that PKRU allows, makes read-only or denies.
    fn all_leaves() -> impl Iterator<Item = Leaf> {
        let views = [View::Both, View::Kernel, View::User];
        let rest = (0u16..512).flat_map(|n| [0u32, 0x4, 0x8].map(|pkru| (n, pkru)));
        views.into_iter().flat_map(move |view| rest.clone().map(move |(n, pkru)| (view, n, pkru))).map(
            |(view, n, pkru)| {
                let bit = |i: u16| n >> i & 1 != 0;
                Leaf {
                    pfn: Pfn::new(0x123),
                    perms: Perms::new(bit(0), bit(1), bit(2)).with_key(1),
                    accessed: bit(3),
                    dirty: bit(4),
                    writable_frame: bit(5),
                    rules: Rules {
                        view,
                        wp: bit(6) || view == View::User,
                        smep: bit(7),
                        smap: bit(8),
                        pkru: if view == View::Both { 0 } else { pkru },
                    },
                }
            },
        )
    }

    fn accesses() -> Vec<Access> {
        let privileges = [Privilege::Supervisor, Privilege::SupervisorAc, Privilege::User];
        let kinds = [AccessKind::Read, AccessKind::Write, AccessKind::Fetch];
        kinds.into_iter().flat_map(|kind| privileges.map(|privilege| Access { kind, privilege })).collect()
    }

    /// The causes that can occur in the view of a leaf.
    fn causes(leaf: &Leaf) -> Vec<Cause> {
        let served = accesses().into_iter().filter(|access| serves(leaf, *access));
        served.map(Cause::Access).chain([Cause::GpteWrite]).collect()
    }

    /// Is this access made in the view? With AC set, that of a kernel without SMAP.
    fn serves(leaf: &Leaf, access: Access) -> bool {
        match leaf.rules.view {
            View::Both => true,
            View::Kernel | View::KernelAc => {
                !access.is_user() && (access.privilege == Privilege::Supervisor || !leaf.rules.smap)
            }
            View::User => access.is_user(),
        }
    }

    /// What the guest's entry itself allows, by a table rather than by bits.
    fn guest_allows(leaf: &Leaf, access: Access) -> bool {
        let Rules { wp, smep, smap, pkru, .. } = leaf.rules;
        let user_page = leaf.perms.user();
        let data = match (access.privilege, access.kind) {
            (_, AccessKind::Fetch) => true,
            _ if user_page && pkru == 0x4 => false,
            (Privilege::Supervisor, _) if smap && user_page => false,
            (Privilege::User, AccessKind::Write) => !(user_page && pkru == 0x8),
            (_, AccessKind::Write) => !(user_page && pkru == 0x8 && wp),
            (_, AccessKind::Read) => true,
        };
        data && match (access.privilege, access.kind) {
            (Privilege::User, _) if !user_page => false,
            (Privilege::User, AccessKind::Write) => leaf.perms.write(),
            (_, AccessKind::Write) => leaf.perms.write() || !wp,
            (_, AccessKind::Read) => true,
            (Privilege::User, AccessKind::Fetch) => leaf.perms.execute(),
            (_, AccessKind::Fetch) => leaf.perms.execute() && !(smep && user_page),
        }
    }

    /// What the CPU allows through a shadow entry: CR0.WP = 1; for both rings SMEP, SMAP and AC are the guest's, else all is ring 3.
    fn shadow_allows(leaf: &Leaf, spte: Spte, access: Access) -> bool {
        let ring3 = access.is_user() || leaf.rules.view != View::Both;
        let blocked = match (access.privilege, access.kind) {
            _ if ring3 => !spte.user(),
            (_, AccessKind::Fetch) => leaf.rules.smep && spte.user(),
            (Privilege::SupervisorAc, _) => false,
            _ => leaf.rules.smap && spte.user(),
        };
        spte.present()
            && !blocked
            && match access.kind {
                AccessKind::Read => true,
                AccessKind::Write => spte.writable(),
                AccessKind::Fetch => spte.executable(),
            }
    }

    #[test]
    fn never_grants_more_than_the_guest() {
        for leaf in all_leaves() {
            for cause in causes(&leaf) {
                let spte = propagate(leaf, cause);
                for access in accesses().into_iter().filter(|access| serves(&leaf, *access)) {
                    if shadow_allows(&leaf, spte, access) {
                        assert!(guest_allows(&leaf, access), "{leaf:?} {cause:?} {access:?}");
                        assert!(leaf.accessed, "I3");
                        assert!(!access.is_write() || (leaf.dirty && leaf.writable_frame), "I3, I4");
                    }
                }
            }
        }
    }

    #[test]
    fn lets_the_access_that_asked_go_on() {
        for leaf in all_leaves().filter(|l| l.accessed) {
            for access in accesses().into_iter().filter(|access| serves(&leaf, *access) && guest_allows(&leaf, *access))
            {
                let possible = !access.is_write() || (leaf.dirty && leaf.writable_frame);
                let spte = propagate(leaf, Cause::Access(access));
                // What no entry can say: fetch but do not read; and the supervisor's writes past a clear WP and past SMAP.
                let read = Access { kind: AccessKind::Read, ..access };
                let inexpressible = match access.kind {
                    AccessKind::Fetch => !guest_allows(&leaf, read) && leaf.rules.view != View::Both,
                    AccessKind::Write => leaf.rules.view == View::Both && leaf.rules.smap && leaf.perms.user(),
                    AccessKind::Read => false,
                };
                if possible && !inexpressible {
                    assert!(shadow_allows(&leaf, spte, access), "{leaf:?} {access:?}");
                }
            }
        }
    }
}
