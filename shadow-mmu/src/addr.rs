//! Addresses and frame numbers, one type for each unit.
//!
//! `Gva`, `Gpa`, `Gfn` are the guest's, `Hpa`, `Hva`, `Pfn` the host's. "pfn" means *host* frame number here, as in KVM and
//! unlike in Xen. Nothing converts between guest and host units: only [`GuestMem::kind`](crate::GuestMem::kind) turns a `Gfn`
//! into a `Pfn`. A guest chooses any value it likes, so arithmetic wraps and never panics.

use core::fmt;

/// log2 of the bytes in a frame.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a frame.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number of this unit.
            #[must_use]
            #[inline]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The bare number.
            #[must_use]
            #[inline]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// `self + n` in the same unit, wrapping at 2^64.
            #[must_use]
            #[inline]
            #[allow(clippy::should_implement_trait, reason = "wraps, unlike `+`")]
            pub const fn add(self, n: u64) -> Self {
                Self(self.0.wrapping_add(n))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

unit! {
    /// Guest virtual (linear) address, in bytes. May hold any 64-bit value, canonical or not.
    Gva
}
unit! {
    /// Guest physical address, in bytes.
    Gpa
}
unit! {
    /// Guest frame number: a [`Gpa`] in units of 4 KiB.
    Gfn
}
unit! {
    /// Host physical address, in bytes.
    Hpa
}
unit! {
    /// Host virtual address, in bytes.
    Hva
}
unit! {
    /// Host frame number: an [`Hpa`] in units of 4 KiB.
    Pfn
}

impl Gva {
    /// The first address of the 4 KiB page.
    #[must_use]
    #[inline]
    pub const fn page(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// Byte within the 4 KiB page.
    #[must_use]
    #[inline]
    pub const fn offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }

    /// The entry that a table of 512 entries at `level` uses for this address. The shadow's own tables all have this shape.
    #[must_use]
    #[inline]
    pub const fn slot(self, level: Level) -> usize {
        ((self.0 >> level.shift()) & 511) as usize
    }
}

impl Gpa {
    /// The frame that holds this byte.
    #[must_use]
    #[inline]
    pub const fn gfn(self) -> Gfn {
        Gfn(self.0 >> PAGE_SHIFT)
    }

    /// Byte within the frame.
    #[must_use]
    #[inline]
    pub const fn offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }
}

impl Gfn {
    /// The first byte of the frame.
    #[must_use]
    #[inline]
    pub const fn base(self) -> Gpa {
        Gpa(self.0 << PAGE_SHIFT)
    }

    /// The first frame of the naturally aligned run of `2^order` frames that holds this one.
    #[must_use]
    #[inline]
    pub const fn align_down(self, order: u32) -> Self {
        Self(self.0 >> order << order)
    }
}

impl Pfn {
    /// The first byte of the frame.
    #[must_use]
    #[inline]
    pub const fn base(self) -> Hpa {
        Hpa(self.0 << PAGE_SHIFT)
    }
}

impl Hpa {
    /// The frame that holds this byte.
    #[must_use]
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 >> PAGE_SHIFT)
    }
}

/// Level of a page table: `L1` holds 4 KiB leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Page table.
    L1 = 1,
    /// Page directory.
    L2 = 2,
    /// Page-directory-pointer table.
    L3 = 3,
    /// PML4.
    L4 = 4,
    /// PML5.
    L5 = 5,
}

impl Level {
    /// 1..=5.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The level with this number.
    #[must_use]
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::L1,
            2 => Self::L2,
            3 => Self::L3,
            4 => Self::L4,
            5 => Self::L5,
            _ => return None,
        })
    }

    /// One level nearer to the leaves; `None` below `L1`.
    #[must_use]
    #[inline]
    pub const fn down(self) -> Option<Self> {
        Self::from_number((self as u8).wrapping_sub(1))
    }

    /// log2 of the bytes that one entry of a 512-entry table of this level maps.
    #[must_use]
    #[inline]
    pub const fn shift(self) -> u32 {
        (self as u32).wrapping_mul(9).wrapping_add(3)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.number())
    }
}
