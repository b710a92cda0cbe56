//! The short ways of exits: what kernels do most often, in flat code, while nothing unusual goes on. Each either does all of it, or has
//! changed nothing that the guest sees; then the long way, which is the reference, does it and finds the faults.
//!
//! Under a trace everything goes the long way, so a traced run and a plain one can be compared (`tests/e2e`).

use crate::emul::{Control, Recipe};
use crate::vcpu::flags;
use crate::vm::Vm;

impl Vm {
    /// Whether short ways are open: the guest is a deprivileged one, and nothing is stepped over, shown for one step, opened or traced.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        !self.world.is_hardware()
            && self.step.is_none()
            && !self.is_unveiled()
            && !self.mmu.is_open()
            && !self.tracer.is_on()
            && self.world.context().rflags as u32 & flags::TF == 0
    }

    /// After #GP(0): does the instruction at EIP if it has a recipe. False: nothing was done.
    #[inline]
    pub(super) fn refused_shortly(&mut self) -> bool {
        if !self.runs_flat_kernel() {
            return false;
        }
        let eip = self.eip();
        let mut bytes = [0; 16];
        if self.world.read_linear(eip, &mut bytes).is_err() {
            return false;
        }
        let Some((recipe, next)) = self.decoded.recipe(eip, u128::from_le_bytes(bytes)) else { return false };
        let done = match recipe {
            Recipe::Long => false,
            Recipe::Cli => {
                self.vcpu.set_interrupts(false);
                true
            }
            Recipe::Sti => {
                self.set_interrupts_after(next);
                true
            }
            Recipe::ReadControl(control, to) => {
                let value = match control {
                    Control::Cr0 => self.vcpu.cr0,
                    Control::Cr2 => self.vcpu.cr2,
                    Control::Cr3 => self.vcpu.cr3,
                    Control::Cr4 => self.vcpu.cr4,
                };
                if let Some(place) = self.world.context_mut().gpr.get_mut(to.index()) {
                    *place = value.into();
                }
                true
            }
            Recipe::LoadCr3(from) => self.write_cr3(self.gpr(from.index())).is_ok(),
            Recipe::Invalidate(base, offset) => {
                let flat = self.has_flat_data();
                if flat {
                    self.invalidate(self.gpr(base.index()).wrapping_add(offset));
                }
                flat
            }
        };
        if done && let Some(reason) = recipe.reason() {
            let context = self.world.context_mut();
            context.rip = next.into();
            context.rflags &= !u64::from(flags::RF);
            self.count(reason);
        }
        done
    }
}
