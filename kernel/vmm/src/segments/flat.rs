//! Segment registers known to hold flat segments, so that the short ways need not look.
//!
//! A selector is remembered with the register it was found flat in. Whatever changes a live entry forgets all of them, and a register
//! that keeps a descriptor which the table has lost is never remembered; so the comparison of a selector decides.

use gnomon_hw::SegReg;

use crate::vm::Vm;

/// Selectors of flat segments by register; 0, which is never flat, where none is known.
#[derive(Clone, Copy, Default)]
pub(super) struct Flat {
    code: u16,
    data: u16,
}

impl Vm {
    /// Whether the code that runs is the guest kernel's, 32-bit, in a segment of base 0: EIP is a linear address.
    #[inline]
    pub(crate) fn runs_flat_kernel(&mut self) -> bool {
        let selector = self.world.context().cs as u16;
        selector == self.live.flat.code || self.learn_code(selector)
    }

    /// Whether the kernel's DS has base 0.
    #[inline]
    pub(crate) fn has_flat_data(&mut self) -> bool {
        let selector = self.world.settled_segment(SegReg::Ds);
        selector != 0 && (selector == self.live.flat.data || self.learn_data(selector))
    }

    #[cold]
    fn learn_code(&mut self, selector: u16) -> bool {
        let code = self.loaded_descriptor(SegReg::Cs);
        let flat = self.cpl() == 0 && code.is_some_and(|code| code.is_code() && code.is_big() && code.base() == 0);
        if flat {
            self.live.flat.code = selector;
        }
        flat
    }

    #[cold]
    fn learn_data(&mut self, selector: u16) -> bool {
        let flat = self.loaded_descriptor(SegReg::Ds).is_some_and(|data| data.base() == 0);
        if flat {
            self.live.flat.data = selector;
        }
        flat
    }

    /// A live entry changed.
    #[inline]
    pub(super) fn forget_flat(&mut self) {
        self.live.flat = Flat::default();
    }
}
