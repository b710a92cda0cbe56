//! Task switches that the CPU leaves to the monitor: VT-x every one (SDM 3C 26.4.2), AMD-V on request.
//!
//! The CPU has looked at gate and descriptor and given their exceptions itself; what is checked again here costs little. Nothing has
//! changed for the guest, and EIP is at the instruction, so an exception of the old task is reflected as ever.

use gnomon_hw::virt::{TaskCause, TaskSwitch};
use gnomon_trace::Reason;

use super::Cause;
use crate::event::{Event, Source};
use crate::trap::{Emulated, vector};
use crate::vcpu::{Selector, flags};
use crate::vm::Vm;

impl Vm {
    /// Does what the CPU has left to us.
    #[cold] // Out of the way of shorter exits.
    pub(crate) fn on_task_switch(&mut self, switch: TaskSwitch) -> Emulated<()> {
        self.count(Reason::TaskSwitch);
        if self.world.context().rflags as u32 & flags::VM != 0 {
            self.keep_v86();
        }
        self.refresh();
        let tss = Selector(switch.selector);
        let event = match switch.cause {
            TaskCause::Event => self.interrupted.map(Event::from),
            _ => None,
        };
        let next = match (switch.next, event) {
            (Some(next), _) => next,
            (None, Some(event)) if event.source != Source::Software => self.eip(),
            (None, _) => self.decode()?.next_ip32(),
        };
        if let Some(event) = event {
            self.deliver_to_tss(&event, tss, next)?;
            if event.source == Source::External && event.vector == vector::NMI {
                self.world.block_nmi(true);
            }
            return Ok(());
        }
        let cause = match switch.cause {
            TaskCause::Jump => Cause::Jump,
            TaskCause::Return => Cause::Return,
            TaskCause::Call | TaskCause::Event => Cause::Call,
        };
        if cause == Cause::Return {
            self.world.block_nmi(false); // even if it faults (SDM 3A 6.7.1)
        }
        let due = self.switch_task(tss, cause, next)?;
        due.map_or(Ok(()), |exception| Err(exception.into()))
    }
}
