//! The heart: from what the guest's entry says to what the shadow's entry is. Pure; every path computes leaves here.
//!
//! It never grants more than the guest does (I2), grants nothing while A is clear and no write while D is clear (I3), and no
//! write to a tracked frame (I4).

use crate::access::{Access, Perms, Privilege};
use crate::addr::Pfn;
use crate::pte::Spte;

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
    /// CR0.WP.
    pub wp: bool,
    /// CR4.SMEP; matters only if CR0.WP = 0.
    pub smep: bool,
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
/// While CR0.WP = 0 the supervisor may write read-only user pages, but the host's WP is always 1. As KVM does, the entry is
/// made writable and supervisor-only for a supervisor's write, and goes back to read-only and user for a user's access.
#[must_use]
#[inline]
pub fn propagate(leaf: Leaf, cause: Cause) -> Spte {
    if !leaf.accessed {
        return Spte::ABSENT;
    }
    let may_write = leaf.dirty && leaf.writable_frame;
    if leaf.wp || leaf.perms.write() {
        let perms = Perms::new(leaf.perms.user(), leaf.perms.write() && may_write, leaf.perms.execute());
        return Spte::leaf(leaf.pfn, perms);
    }
    let supervisor_writes = match cause {
        Cause::Access(access) => access.is_write() && access.privilege == Privilege::Supervisor,
        Cause::GpteWrite => false,
    };
    let to_supervisor = may_write && (supervisor_writes || !leaf.perms.user());
    let user = leaf.perms.user() && !to_supervisor;
    // A user page that became a supervisor page would escape SMEP.
    let execute = leaf.perms.execute() && !(leaf.smep && to_supervisor && leaf.perms.user());
    Spte::leaf(leaf.pfn, Perms::new(user, to_supervisor, execute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::AccessKind;

    fn all_leaves() -> impl Iterator<Item = Leaf> {
        (0u16..512).map(|n| {
            let bit = |i: u16| n >> i & 1 != 0;
            Leaf {
                pfn: Pfn::new(0x123),
                perms: Perms::new(bit(0), bit(1), bit(2)),
                accessed: bit(3),
                dirty: bit(4),
                writable_frame: bit(5),
                wp: bit(6),
                smep: bit(7) && !bit(6),
            }
        })
    }

    fn causes() -> Vec<Cause> {
        let mut causes = vec![Cause::GpteWrite];
        for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Fetch] {
            for privilege in [Privilege::Supervisor, Privilege::User] {
                causes.push(Cause::Access(Access { kind, privilege }));
            }
        }
        causes
    }

    /// What the guest's entry itself allows, by a table rather than by bits.
    fn guest_allows(leaf: &Leaf, access: Access) -> bool {
        match (access.privilege, access.kind) {
            (Privilege::User, _) if !leaf.perms.user() => false,
            (Privilege::Supervisor, AccessKind::Write) => leaf.perms.write() || !leaf.wp,
            (Privilege::User, AccessKind::Write) => leaf.perms.write(),
            (_, AccessKind::Read) => true,
            (Privilege::Supervisor, AccessKind::Fetch) if leaf.smep && leaf.perms.user() => false,
            (_, AccessKind::Fetch) => leaf.perms.execute(),
        }
    }

    /// What the CPU allows through a shadow entry: CR0.WP = 1, SMEP mirrored from the guest.
    fn shadow_allows(leaf: &Leaf, spte: Spte, access: Access) -> bool {
        spte.present()
            && match (access.privilege, access.kind) {
                (Privilege::User, _) if !spte.user() => false,
                (_, AccessKind::Read) => true,
                (_, AccessKind::Write) => spte.writable(),
                (Privilege::Supervisor, AccessKind::Fetch) if leaf.smep && spte.user() => false,
                (_, AccessKind::Fetch) => spte.executable(),
            }
    }

    #[test]
    fn never_grants_more_than_the_guest() {
        for leaf in all_leaves() {
            for cause in causes() {
                let spte = propagate(leaf, cause);
                for other in causes() {
                    let Cause::Access(access) = other else { continue };
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
            for cause in causes() {
                let Cause::Access(access) = cause else { continue };
                let possible = !access.is_write() || (leaf.dirty && leaf.writable_frame);
                if guest_allows(&leaf, access) && possible {
                    assert!(shadow_allows(&leaf, propagate(leaf, cause), access), "{leaf:?} {access:?}");
                }
            }
        }
    }
}
