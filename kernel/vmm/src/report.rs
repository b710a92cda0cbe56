//! What the hypervisor says when a VM stops, and its counters at the end.

use alloc::string::String;
use core::fmt::Write as _;
use gnomon_hw::SegReg;
use gnomon_trace::{Kind, Record};
use shadow_mmu::{Access, AccessKind, Gva, Privilege};

use crate::trap::StopReason;
use crate::vm::Vm;

const REGISTERS: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];

/// Says how a VM ended; with its state if it did not end by itself.
pub(crate) fn stopped(vm: &mut Vm, reason: StopReason) {
    vm.tracer.record(|| Record {
        code: reason.number(),
        arg: if let StopReason::Exit(status) = reason { status } else { 0 },
        a: vm.eip().into(),
        ..Record::new(Kind::VmStop)
    });
    match reason {
        StopReason::Exit(_) | StopReason::PowerOff | StopReason::HaltedForever => {
            log::info!("guest {}: {reason}", vm.name)
        }
        _ => {
            log::error!("guest {}: stopped: {reason}", vm.name);
            registers(vm);
            code_bytes(vm);
            walks(vm, "eip", vm.segment_base(SegReg::Cs).wrapping_add(vm.eip()));
            walks(vm, "cr2", vm.vcpu.cr2);
        }
    }
}

fn registers(vm: &Vm) {
    let mut line = String::new();
    for (number, name) in REGISTERS.iter().enumerate() {
        let _ = write!(line, "{name}={:08x} ", vm.gpr(number));
    }
    log::error!("  {line}");
    log::error!(
        "  eip={:08x} eflags={:08x} cpl={} cr0={:08x} cr2={:08x} cr3={:08x} cr4={:08x}",
        vm.eip(),
        vm.eflags(),
        vm.cpl(),
        vm.vcpu.cr0,
        vm.vcpu.cr2,
        vm.vcpu.cr3,
        vm.vcpu.cr4
    );
    log::error!(
        "  cs={:04x} ss={:04x} ds={:04x} es={:04x} fs={:04x} gs={:04x} gdt={:08x}+{:x} idt={:08x}+{:x} tr={:04x} ldt={:04x}",
        vm.visible_selector(SegReg::Cs).0,
        vm.visible_selector(SegReg::Ss).0,
        vm.world.segment(SegReg::Ds),
        vm.world.segment(SegReg::Es),
        vm.world.segment(SegReg::Fs),
        vm.world.segment(SegReg::Gs),
        vm.vcpu.gdtr.base,
        vm.vcpu.gdtr.limit,
        vm.vcpu.idtr.base,
        vm.vcpu.idtr.limit,
        vm.vcpu.tr.selector.0,
        vm.vcpu.ldtr.selector.0
    );
}

fn code_bytes(vm: &Vm) {
    let gva = vm.segment_base(SegReg::Cs).wrapping_add(vm.eip());
    let access = Access { kind: AccessKind::Read, privilege: Privilege::Supervisor };
    let Ok(gpa) = vm.mmu.probe(Gva::new(gva.into()), access) else {
        log::error!("  bytes at eip: not mapped");
        return;
    };
    let mut bytes = [0; 16];
    vm.mmu.mem().read(gpa, &mut bytes);
    let mut line = String::new();
    for byte in bytes {
        let _ = write!(line, "{byte:02x} ");
    }
    log::error!("  bytes at eip: {line}");
}

/// The guest's walk of an address beside the shadow's.
fn walks(vm: &Vm, what: &str, gva: u32) {
    let gva = Gva::new(gva.into());
    log::error!("  guest  walk of {what}={gva}: {}", vm.mmu.guest_walk(gva));
    log::error!("  shadow walk of {what}={gva}: {}", vm.mmu.shadow_walk(gva));
}

/// Prints the counters of a VM.
pub(crate) fn summary(vm: &Vm) {
    log::info!("guest {}: {} exits", vm.name, vm.counters.total());
    for (reason, count) in vm.counters.nonzero() {
        log::info!("  {:<20} {count}", reason.name());
    }
    for (name, count) in vm.bus.accesses() {
        log::info!("  device {name:<25} {count}");
    }
    let recycled = [("pages recycled", vm.code.recycled)];
    for (name, count) in recycled.into_iter().chain(vm.code.patching.counters()).filter(|&(_, count)| count != 0) {
        log::info!("  code {name:<27} {count}");
    }
    if let Some(nested) = &vm.nested {
        log::info!("  {:?}", nested.counters());
    }
    for (name, count) in vm.mmu.counters().iter().filter(|&(_, count)| count != 0) {
        log::info!("  mmu {name:<28} {count}");
    }
}

/// Puts the counters into the trace.
pub(crate) fn counters_to_trace(vm: &Vm) {
    for (reason, count) in vm.counters.nonzero() {
        vm.tracer.record(|| Record { code: reason as u8, a: count, ..Record::new(Kind::Counter) });
    }
    for (number, (name, count)) in vm.mmu.counters().iter().enumerate() {
        vm.tracer.record(|| {
            let mut text = [0_u8; 16];
            for (place, byte) in text.iter_mut().zip(name.bytes()) {
                *place = byte;
            }
            let [b, c] = [0, 8].map(|at| {
                let mut word = [0; 8];
                for (place, byte) in word.iter_mut().zip(text.iter().skip(at)) {
                    *place = *byte;
                }
                u64::from_le_bytes(word)
            });
            Record { arg: number as u32, a: count, b, c, ..Record::new(Kind::MmuCounter) }
        });
    }
}
