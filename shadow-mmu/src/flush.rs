//! What must leave the TLB before the guest runs again. Owns I10.
//!
//! A plan says *at least* what must go. Plans merge with [`FlushPlan::join`] and never shrink. Only the kernel's TLB code
//! consumes them.

use crate::addr::Gva;

/// What must leave the TLB (and the paging-structure caches) before the guest runs again.
///
/// Executing a plan for a page means INVLPG of it, which also empties the paging-structure caches (SDM 3A 4.10.4.1).
/// Executing a plan for all means a CR3 write; no shadow entry is global. Whichever of the guest's [roots](crate::Roots) is loaded
/// makes no difference.
#[must_use = "a flush plan must be executed before the guest runs again"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPlan(Inner);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inner {
    None,
    Page(Gva),
    All,
}

impl FlushPlan {
    /// Nothing needs to go.
    pub const NONE: Self = Self(Inner::None);
    /// Everything must go.
    pub const ALL: Self = Self(Inner::All);

    /// Nothing needs to go.
    #[inline]
    pub const fn none() -> Self {
        Self::NONE
    }

    /// The page that holds `gva` must go.
    #[inline]
    pub const fn page(gva: Gva) -> Self {
        Self(Inner::Page(gva.page()))
    }

    /// Everything must go.
    #[inline]
    pub const fn all() -> Self {
        Self::ALL
    }

    /// The plan that covers both.
    #[inline]
    pub fn join(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Inner::None, _) => other,
            (_, Inner::None) => self,
            (Inner::Page(a), Inner::Page(b)) if a == b => self,
            _ => Self::ALL,
        }
    }

    /// Is there nothing to do?
    #[must_use]
    #[inline]
    pub const fn is_none(&self) -> bool {
        matches!(self.0, Inner::None)
    }

    /// Must everything go?
    #[must_use]
    #[inline]
    pub const fn is_all(&self) -> bool {
        matches!(self.0, Inner::All)
    }

    /// The single pages to invalidate, each by its first address. Empty if [`is_all`](Self::is_all).
    pub fn pages(&self) -> impl Iterator<Item = Gva> + use<> {
        match self.0 {
            Inner::Page(gva) => Some(gva),
            Inner::None | Inner::All => None,
        }
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_is_an_upper_bound_and_has_none_as_neutral() {
        let plans =
            [FlushPlan::NONE, FlushPlan::page(Gva::new(0x1234)), FlushPlan::page(Gva::new(0x5000)), FlushPlan::ALL];
        for a in plans {
            assert_eq!(a.join(FlushPlan::NONE), a);
            assert_eq!(a.join(a), a);
            for b in plans {
                let joined = a.join(b);
                assert_eq!(joined, b.join(a));
                for page in a.pages().chain(b.pages()) {
                    assert!(joined.is_all() || joined.pages().any(|p| p == page));
                }
                assert_eq!(joined.is_all() || joined.pages().count() == 1, !(a.is_none() && b.is_none()));
            }
        }
    }

    #[test]
    fn a_page_is_named_by_its_first_address() {
        assert_eq!(FlushPlan::page(Gva::new(0x1fff)).pages().next(), Some(Gva::new(0x1000)));
    }
}
