//! The main loop: builds the guests, runs them in turn, and reports how they ended.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use gnomon_boot::BootInfo;
use gnomon_hw::power::ExitCode;
use gnomon_hw::{Exit, idle, phys, time};

use crate::build::build;
use crate::config::{KernelConfig, parse_guests, parse_kernel};
use crate::console::{self, Console};
use crate::dev::earlier;
use crate::disk_save;
use crate::report;
use crate::screen_view::ScreenView;
use crate::tracer::Tracer;
use crate::trap::StopReason;
use crate::vm::Vm;

/// A guest and its place on the console.
struct Guest {
    vm: Vm,
    console: Console,
    screen: ScreenView,
    /// Places of the disks that are saved at the end.
    saved_disks: Vec<usize>,
    ended: Option<StopReason>,
    /// It gets what is typed.
    listens: bool,
    /// What the listener before this guest has left unread.
    left_over: VecDeque<u8>,
    /// The deadline that the host's timer is armed for.
    armed: Option<u64>,
}

/// Why a guest's turn was over.
enum TurnEnd {
    Expired,
    Halted,
    Stopped(StopReason),
}

/// How everything ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The code for the machine's debug port.
    pub code: ExitCode,
    /// The status that the first guest ended itself with, if it did.
    pub status: Option<u32>,
    /// The same for people.
    pub reason: &'static str,
}

impl Ending {
    const fn refused(reason: &'static str) -> Self {
        Self { code: ExitCode::Config, status: None, reason }
    }
}

/// Runs all guests that the boot information describes until each has ended.
pub fn run(boot: &BootInfo) -> Ending {
    let config = match parse_kernel(boot.command_line) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    log::set_max_level(config.log);
    let mut guests = match make_guests(boot, &config) {
        Ok(guests) => guests,
        Err(code) => return code,
    };
    schedule(&mut guests, &config);
    finish(&mut guests, &config)
}

fn refuse(error: &dyn core::fmt::Display) -> Ending {
    log::error!("{error}");
    Ending::refused("configuration")
}

#[inline(never)] // what it takes to build a VM must not lie on the stack while guests run
fn make_guests(boot: &BootInfo, config: &KernelConfig) -> Result<Vec<Guest>, Ending> {
    let tracer = Tracer::new(config.trace.is_on());
    let lines = boot.modules.iter().map(|module| module.command_line);
    let descriptions = parse_guests(lines).map_err(|error| refuse(&error))?;
    let many = descriptions.len() > 1;
    let shared = console::Shared::default();
    let mut guests = Vec::with_capacity(descriptions.len());
    for (index, description) in descriptions.iter().enumerate() {
        let bytes = |index: usize| boot.modules.get(index).map_or(&[][..], phys::module_bytes);
        let vm = build(description, (index, config.backend), bytes, &tracer, config.marks).map_err(|error| {
            log::error!("guest {}: {error}", description.name);
            Ending::refused("guest")
        })?;
        log::info!(
            "guest {}: {} KiB of memory, entry {:#x}, {} MiB in pieces of 2 MiB, the rest scattered over host frames",
            vm.name,
            vm.mmu.mem().frame_count() * 4,
            vm.eip(),
            vm.mmu.mem().block_count() * 2
        );
        guests.push(Guest {
            vm,
            console: Console::new(many.then_some((index, description.name.as_str())), &shared),
            screen: ScreenView::new(description.console),
            saved_disks: description.saved_disks().collect(),
            ended: None,
            listens: false,
            left_over: VecDeque::new(),
            armed: None,
        });
    }
    Ok(guests)
}

/// Round robin over the guests that can run; idles when none can.
fn schedule(guests: &mut [Guest], config: &KernelConfig) {
    let slice = time::tsc_hz() / 1000 * u64::from(config.timeslice_ms);
    let alone = guests.len() == 1;
    while guests.iter().any(|guest| guest.ended.is_none()) {
        let mut ran = false;
        give_input_to_the_first(guests);
        for guest in guests.iter_mut().filter(|guest| guest.ended.is_none()) {
            guest.wake();
            if guest.vm.vcpu.halted {
                continue;
            }
            ran = true;
            let until = if alone { u64::MAX } else { time::tsc().saturating_add(slice) };
            if let TurnEnd::Stopped(reason) = guest.turn(until) {
                guest.end(reason);
            }
        }
        if !ran {
            wait_for_work(guests);
        }
    }
}

/// The console's input belongs to the first guest that still runs, with what those before it have left unread.
fn give_input_to_the_first(guests: &mut [Guest]) {
    let Some(first) = guests.iter().position(|guest| guest.ended.is_none()) else { return };
    let (ended, running) = guests.split_at_mut(first);
    let Some(listener) = running.first_mut() else { return };
    if !listener.listens {
        listener.listens = true;
        for guest in ended {
            listener.left_over.extend(guest.vm.bus.take_unread_input().chain(guest.left_over.drain(..)));
        }
    }
}

/// Every guest is halted: sleeps until the first timer of any of them, or a key.
fn wait_for_work(guests: &mut [Guest]) {
    let deadline = guests.iter().filter(|guest| guest.ended.is_none()).filter_map(Guest::deadline).min();
    if let Some(deadline) = deadline {
        time::arm_timer(deadline);
    }
    idle::wait();
}

impl Guest {
    /// Lets the devices run; a halted CPU with an interrupt waiting goes on.
    fn wake(&mut self) {
        self.serve_devices();
        if self.vm.vcpu.halted && self.vm.is_woken() {
            self.vm.vcpu.halted = false;
        }
    }

    /// When this guest's devices want attention, in TSC ticks.
    fn deadline(&self) -> Option<u64> {
        let devices = earlier(self.vm.bus.next_deadline(), self.screen.deadline(&self.vm));
        earlier(devices, self.console.deadline()).map(|when| self.vm.clock.tsc_at(when))
    }

    /// Moves bytes and time between the devices and the host.
    fn serve_devices(&mut self) {
        self.vm.devices_touched = false;
        // What does not fit waits in the host's UART, and so in front of it: nothing that is typed is lost.
        while self.listens && self.vm.bus.accepts_input() {
            let Some(byte) = self.left_over.pop_front().or_else(gnomon_hw::console::read_byte) else { break };
            self.vm.bus.console_input(byte);
        }
        let now = self.vm.now();
        self.vm.bus.advance(now);
        self.console.print(self.vm.bus.console_output(), now);
        self.screen.poll(&self.vm, now, &mut self.console);
    }

    /// Runs the guest until it halts, stops, or `until` (TSC) has passed.
    #[inline(never)] // The registers are for this loop.
    fn turn(&mut self, until: u64) -> TurnEnd {
        self.armed = None;
        self.arm(until);
        loop {
            let mut waits = false;
            if self.vm.wants_attention() {
                self.vm.reclaim_flags();
                if self.vm.devices_touched {
                    self.serve_devices();
                    if let Some(reason) = self.vm.end {
                        return TurnEnd::Stopped(reason);
                    }
                    if time::tsc() >= until {
                        return TurnEnd::Expired;
                    }
                    self.arm(until);
                }
                if let Err(reason) = self.vm.inject_interrupt() {
                    return TurnEnd::Stopped(reason);
                }
                if self.vm.vcpu.halted {
                    return TurnEnd::Halted;
                }
                if self.vm.devices_touched && self.vm.world.is_hardware() {
                    // The handler of what was just delivered may run without an exit: arm the timer for the next one now.
                    continue;
                }
                waits = self.vm.bus.interrupt_pending();
            }
            let exit = self.vm.enter(waits);
            if self.vm.on_exit_shortly(exit) {
                continue;
            }
            if matches!(exit, Exit::Interrupt(_)) {
                self.armed = None;
            }
            if let Err(reason) = self.vm.on_exit(exit) {
                return TurnEnd::Stopped(reason);
            }
        }
    }

    /// Arms the host's timer for the next thing to do. The timer is one-shot: what it was armed for counts until it fired.
    fn arm(&mut self, until: u64) {
        let deadline = self.deadline().unwrap_or(u64::MAX).min(until);
        if deadline != u64::MAX && self.armed != Some(deadline) {
            time::arm_timer(deadline);
            self.armed = Some(deadline);
        }
    }

    fn end(&mut self, reason: StopReason) {
        self.serve_devices();
        let now = self.vm.now();
        self.screen.end(&self.vm, now, &mut self.console);
        self.console.finish();
        self.vm.refresh();
        report::stopped(&mut self.vm, reason);
        disk_save::send(&self.vm, &self.saved_disks);
        self.ended = Some(reason);
    }
}

/// Prints the counters and says how it went.
fn finish(guests: &mut [Guest], config: &KernelConfig) -> Ending {
    let mut good = true;
    for guest in guests.iter() {
        report::counters_to_trace(&guest.vm);
        if config.summary.is_on() {
            report::summary(&guest.vm);
        }
        good &= guest.ended.is_some_and(StopReason::is_good);
    }
    if let Some(guest) = guests.first() {
        guest.vm.tracer.drain();
    }
    let status = match guests.first().and_then(|guest| guest.ended) {
        Some(StopReason::Exit(status)) => Some(status),
        _ => None,
    };
    let (code, reason) = match good {
        true => (ExitCode::Ok, "all guests ended with status 0"),
        false => (ExitCode::Guest, "a guest failed"),
    };
    Ending { code, status, reason }
}
