//! Waiting when no guest can run.

use crate::entry::gnomon_idle;
use crate::idt::IRQ_BASE;
use crate::irq::{self, Irq};

/// Stops the CPU until an interrupt of the host arrives; it is acknowledged. Without an armed timer or input this may be for
/// ever.
pub fn wait() -> Irq {
    // SAFETY: interrupts are on only within the stub, where `fault` expects them; the IDT and the controllers were set up by
    // `init`, without which no world exists and nothing waits.
    let vector = unsafe { gnomon_idle() };
    irq::acknowledge(vector.wrapping_sub(u32::from(IRQ_BASE)) as u8)
}
