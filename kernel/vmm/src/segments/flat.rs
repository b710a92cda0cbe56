//! Segments known to be flat, so that the short ways need not look at descriptors.
//!
//! A selector is remembered with the role it was found good in. Whatever changes a live entry, or opens a page of descriptors to the
//! guest's writes, forgets all of them, and a register that may get another descriptor unseen is never remembered; so the comparison of a
//! selector decides.

use gnomon_hw::SegReg;

use super::loaded::real_selector;
use crate::vcpu::{Descriptor, Selector};
use crate::vm::Vm;

/// A selector that was found good, or none: a value that no selector has.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Good(u32);

impl Good {
    const NONE: Self = Self(u32::MAX);

    #[inline]
    fn is(self, selector: u16) -> bool {
        self == Self::of(selector)
    }

    #[inline]
    fn of(selector: u16) -> Self {
        Self(selector.into())
    }
}

/// Good selectors by role.
#[derive(Clone, Copy)]
pub(super) struct Flat {
    /// In CS: 32-bit, base 0; the kernel's and the user's.
    code: [Good; 2],
    /// In SS: the kernel's, 32-bit, base 0.
    stack: Good,
    /// In DS: base 0.
    data: Good,
    /// As the guest names them, with RPL: plain code, and flat stacks, that events and returns may lead to.
    targets: [Targets; 2],
}

#[derive(Clone, Copy)]
struct Targets {
    code: Good,
    stack: Good,
}

impl Flat {
    /// Nothing is known.
    pub(super) const NONE: Self = Self {
        code: [Good::NONE; 2],
        stack: Good::NONE,
        data: Good::NONE,
        targets: [Targets { code: Good::NONE, stack: Good::NONE }; 2],
    };
}

/// A stack that needs no arithmetic.
fn is_flat_stack(stack: Descriptor, cpl: u8) -> bool {
    stack.is_writable() && stack.is_big() && stack.dpl() == cpl && stack.base() == 0
}

fn is_plain_code(code: Descriptor, cpl: u8) -> bool {
    code.is_code() && !code.is_conforming() && code.dpl() == cpl
}

const fn role(cpl: u8) -> usize {
    (cpl != 0) as usize
}

impl Vm {
    /// Whether the code that runs is 32-bit, in a segment of base 0: EIP is a linear address. Not told of hardware guests.
    #[inline]
    pub(crate) fn runs_flat_code(&mut self) -> bool {
        let selector = self.world.context().cs as u16;
        let [kernel, user] = self.live.flat.code;
        kernel.is(selector) || user.is(selector) || self.learn_code(selector)
    }

    /// The same of the guest kernel's code.
    #[inline]
    pub(crate) fn runs_flat_kernel(&mut self) -> bool {
        let selector = self.world.context().cs as u16;
        let [kernel, _] = self.live.flat.code;
        kernel.is(selector) || self.cpl() == 0 && self.learn_code(selector)
    }

    /// The same, if it is known already: one comparison.
    #[inline]
    pub(crate) fn is_known_flat_kernel(&self) -> bool {
        let [kernel, _] = self.live.flat.code;
        // A selector of the kernel's has RPL 1.
        kernel.is(self.world.context().cs as u16)
    }

    /// Does the guest kernel run, with code and stack known to be flat?
    #[inline]
    pub(crate) fn is_plain_flat(&self) -> bool {
        self.is_known_flat_kernel() && self.live.flat.stack.is(self.world.context().ss as u16)
    }

    /// Whether the kernel's stack is flat: ESP is a linear address.
    #[inline]
    pub(crate) fn has_flat_stack(&mut self) -> bool {
        let selector = self.world.context().ss as u16;
        self.live.flat.stack.is(selector) || self.learn_stack(selector)
    }

    /// Whether the kernel's DS has base 0.
    #[inline]
    pub(crate) fn has_flat_data(&mut self) -> bool {
        if self.world.is_hardware() {
            return self.segment_base(SegReg::Ds) == 0;
        }
        let selector = self.world.settled_segment(SegReg::Ds);
        selector != 0 && (self.live.flat.data.is(selector) || self.learn_data(selector))
    }

    /// Whether a selector names plain code of its RPL's level, 0 or 3, and the CPU finds it in the live table.
    #[inline]
    pub(crate) fn is_code_target(&mut self, selector: Selector) -> bool {
        let known = self.live.flat.targets.get(role(selector.rpl()));
        known.is_some_and(|known| known.code.is(selector.0)) || self.learn_code_target(selector)
    }

    /// Whether a selector names a flat stack of its RPL's level, 0 or 3, and the CPU finds it in the live table.
    #[inline]
    pub(crate) fn is_stack_target(&mut self, selector: Selector) -> bool {
        let known = self.live.flat.targets.get(role(selector.rpl()));
        known.is_some_and(|known| known.stack.is(selector.0)) || self.learn_stack_target(selector)
    }

    #[cold]
    fn learn_code(&mut self, selector: u16) -> bool {
        if self.world.is_hardware() {
            return false;
        }
        let code = self.loaded_descriptor(SegReg::Cs);
        let flat = code.is_some_and(|code| code.is_code() && code.is_big() && code.base() == 0);
        let role = role(self.cpl());
        if flat && let Some(known) = self.live.flat.code.get_mut(role) {
            *known = Good::of(selector);
        }
        flat
    }

    #[cold]
    fn learn_stack(&mut self, selector: u16) -> bool {
        let known = self.known_descriptor(Selector(real_selector(&self.world, SegReg::Ss)));
        let stack = known.or_else(|| self.loaded_descriptor(SegReg::Ss).map(Descriptor::to_guest));
        let flat = self.cpl() == 0 && stack.is_some_and(|stack| is_flat_stack(stack, 0));
        if flat {
            self.live.flat.stack = Good::of(selector);
        }
        flat
    }

    #[cold]
    fn learn_data(&mut self, selector: u16) -> bool {
        let flat = self.loaded_descriptor(SegReg::Ds).is_some_and(|data| data.base() == 0);
        if flat {
            self.live.flat.data = Good::of(selector);
        }
        flat
    }

    #[cold]
    fn learn_code_target(&mut self, selector: Selector) -> bool {
        let cpl = selector.rpl();
        self.settle_descriptors();
        let good = self.known_descriptor(selector).is_some_and(|code| is_plain_code(code, cpl));
        if good && let Some(known) = self.live.flat.targets.get_mut(role(cpl)) {
            known.code = Good::of(selector.0);
        }
        good
    }

    #[cold]
    fn learn_stack_target(&mut self, selector: Selector) -> bool {
        let cpl = selector.rpl();
        self.settle_descriptors();
        let good = self.known_descriptor(selector).is_some_and(|stack| is_flat_stack(stack, cpl));
        if good && let Some(known) = self.live.flat.targets.get_mut(role(cpl)) {
            known.stack = Good::of(selector.0);
        }
        good
    }

    /// Descriptors changed, or may change.
    #[inline]
    pub(super) fn forget_flat(&mut self) {
        self.live.flat = Flat::NONE;
    }
}
