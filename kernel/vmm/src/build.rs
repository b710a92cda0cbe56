//! Building a VM from its description.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use gnomon_hw::SegReg;
use gnomon_hw::World;
use gnomon_hw::features;
use gnomon_hw::frames::{self, Owner, VmId};
use gnomon_hw::tables::HostTables;
use gnomon_hw::virt::{Unavailable, Vendor};
use gnomon_trace::{Counters, Kind, Reason, Record};
use shadow_mmu::second::SecondConfig;
use shadow_mmu::{Config, ControlWrite, Gpa, Pfn, Policy, ShadowMmu};

use crate::clock::{self, Clock};
use crate::code::{ShadowCode, view_limit};
use crate::config::{Backend, GuestConfig, MmuMode, Switch};
use crate::dev::{Bus, Disk};
use crate::disk_frames::DiskFrames;
use crate::emul::DecodeCache;
use crate::exit::{Faulted, ShortWays};
use crate::firmware;
use crate::hardware::Nested;
use crate::loader::{self, Entry, GuestWriter, LoadError, OutsideMemory, TableAt};
use crate::marks::Marks;
use crate::progress::Progress;
use crate::ram::{GuestRam, OutOfMemory, PAGE};
use crate::segments::LiveTables;
use crate::tracer::Tracer;
use crate::vcpu::{Descriptor, Selector, TableRegister, Vcpu, cr4};
use crate::vm::Vm;

/// Physical address bits of the virtual CPU.
pub(crate) const MAXPHYADDR: u8 = 36;
/// Frames for shadow tables: this many at least, and one more for each [`GUEST_FRAMES_PER_TABLE`] guest frames, up to a limit.
const LEAST_TABLES: u64 = 256;
const GUEST_FRAMES_PER_TABLE: u64 = 32;
const MOST_TABLES: u64 = 4096;
/// Heap that the host needs for what it remembers of a shadow table and of a guest frame, in bytes, generously.
const HEAP_PER_TABLE: u64 = 6400;
const HEAP_PER_GUEST_FRAME: u64 = 32;
/// Frames that stay free for everything else of the host.
const HOST_RESERVE: u64 = 1024;
/// Selectors of code and data that the CPU holds at entry: those that Linux' protocol names.
const LINUX_ENTRY: [Selector; 2] = [Selector(0x10), Selector(0x18)];
/// Those that QEMU leaves to all others: the firmware's descriptor table has them.
const ENTRY: [Selector; 2] = [Selector(0x08), Selector(0x10)];
const FLAT_CODE: Descriptor = Descriptor(firmware::FLAT_CODE);
const FLAT_DATA: Descriptor = Descriptor(firmware::FLAT_DATA);
/// No protocol promises a stack, but every boot loader has one, and some kernels push to it before they have their own. It ends where
/// QEMU's does.
const BOOT_STACK: u32 = 0x7000;

/// Why a VM could not be built.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// Too little host memory.
    Memory(OutOfMemory),
    /// Too few host frames for its tables, or none for its CPU state.
    Tables,
    /// The CPU cannot run it in this way.
    Backend(Unavailable),
    /// `mmu=nested` without a back end that has second-level tables.
    NestedDepriv,
    /// The image cannot be loaded.
    Load(LoadError),
    /// A bug: the shadow MMU refused the state at reset.
    Reset,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Tables => f.write_str("the host has too few free frames for its shadow tables"),
            Self::Backend(why) => why.fmt(f),
            Self::NestedDepriv => f.write_str("mmu=nested needs backend=vmx or backend=svm: expected mmu=shadow"),
            Self::Load(error) => error.fmt(f),
            Self::Reset => f.write_str("hypervisor bug: the shadow MMU refused the state at reset"),
        }
    }
}

struct RamWriter<'a>(&'a GuestRam);

impl GuestWriter for RamWriter<'_> {
    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), OutsideMemory> {
        let end = gpa.raw().checked_add(bytes.len() as u64).ok_or(OutsideMemory)?;
        if end > self.0.frame_count() * PAGE {
            return Err(OutsideMemory);
        }
        self.0.write(gpa, bytes);
        Ok(())
    }
}

/// What of a guest's policy this CPU can do.
fn possible(guest: &GuestConfig) -> Policy {
    let mark_absent = guest.shadow.mark_absent && features::reserves_address_bits();
    if guest.shadow.mark_absent && !mark_absent {
        log::warn!("guest {}: absent=on is ignored: the CPU has 52 address bits, and reserves none", guest.name);
    }
    Policy { mark_absent, ..guest.shadow }
}

/// Builds the `index`th VM of this run for a back end; `module` gives the bytes of a boot module.
///
/// # Errors
/// [`BuildError`].
#[inline(never)] // A VM is large, and so is the stack frame of who makes one.
pub(crate) fn build(
    guest: &GuestConfig,
    (index, backend): (usize, Backend),
    module: impl Fn(usize) -> &'static [u8],
    tracer: &Tracer,
    marks: Switch,
) -> Result<Vm, BuildError> {
    let number = u8::try_from(index).unwrap_or(u8::MAX).saturating_add(1);
    let id = VmId(number);
    let tracer = tracer.for_vm(number);
    check_memory(guest.memory.div_ceil(PAGE)).map_err(BuildError::Memory)?;
    let ram = GuestRam::new(id, guest.memory, guest.shadow.huge).map_err(BuildError::Memory)?;
    if guest.shadow.huge && ram.block_count() == 0 {
        log::warn!("guest {}: huge=on does nothing: neither it nor the host has 2 MiB in one piece", guest.name);
    }
    for (at, bytes) in firmware::tables(firmware::Machine { apic: guest.apic.is_on(), memory: guest.memory }) {
        ram.write(at, &bytes);
    }
    let modules: Vec<(&[u8], &str)> = guest.modules.iter().map(|m| (module(m.index), m.arguments.as_str())).collect();
    let entry = loader::load(module(guest.image), &modules, guest, &mut RamWriter(&ram)).map_err(BuildError::Load)?;
    let guest_frames = ram.frame_count();
    let vendor = vendor(backend);
    let mode = guest.mmu.unwrap_or(if vendor.is_some() { MmuMode::Nested } else { MmuMode::Shadow });
    let count = if mode == MmuMode::Nested { Config::MIN_FRAMES as u64 } else { table_count(guest_frames) };
    let shadow = table_frames(count, Owner::Table(id))?;
    let config = Config { maxphyaddr: MAXPHYADDR, policy: possible(guest), ..Config::new(shadow, guest_frames) };
    let mmu = ShadowMmu::new(ram, HostTables::new(id), tracer.clone(), config).map_err(|_| BuildError::Tables)?;
    let nested = match (mode, vendor) {
        (MmuMode::Shadow, _) => None,
        (MmuMode::Nested, None) => return Err(BuildError::NestedDepriv),
        (MmuMode::Nested, Some(vendor)) => Some(nested(id, vendor, guest_frames)?),
    };
    let world = match vendor {
        None => World::new(id).map_err(|_| BuildError::Tables)?,
        Some(vendor) => {
            World::new_hardware(id, vendor, nested.as_ref().map(Nested::root)).map_err(BuildError::Backend)?
        }
    };
    let mut vm = Vm {
        name: guest.name.clone(),
        world,
        vcpu: Vcpu { cr4_offered: cr4_offered(guest, vendor.is_some()), ..Vcpu::new() },
        mmu,
        nested,
        interrupted: None,
        task_frame: None,
        live: LiveTables::new(),
        // VT-x and AMD-V run the guest's kernel at its own privilege level.
        code: ShadowCode::new(id, guest_frames, guest.shadow_code.is_on() && vendor.is_none(), guest.patches.is_on()),
        bus: bus(guest, id, module),
        counters: Counters::new(),
        last_reason: Reason::OtherPrivileged,
        clock: Clock::start(),
        watched: tracer.is_on(),
        armed: false,
        hits: 0,
        tracer,
        step: None,
        decoded: DecodeCache::new(),
        write_hint: None,
        device_hint: None,
        retired: false,
        short_ways: ShortWays::Closed,
        faulted: Faulted::NOTHING,
        end: None,
        progress: Progress::default(),
        marks: Marks::new(marks),
        devices_touched: true,
    };
    enter(&mut vm, entry, guest)?;
    Ok(vm)
}

/// The bits of CR4 that the guest's CPU has. Under VT-x and AMD-V none that the transitions would have to hand over.
fn cr4_offered(guest: &GuestConfig, hardware: bool) -> u32 {
    let [_, ebx, ecx, _] = if features::cpuid(0, 0)[0] >= 7 { features::cpuid(7, 0) } else { [0; 4] };
    let bit = |on: bool, bit: u32| if on && !hardware { bit } else { 0 };
    cr4::ALWAYS
        | bit(ecx & 1 << 2 != 0, cr4::UMIP)
        | bit(ebx & 1 << 7 != 0, cr4::SMEP)
        | bit(ebx & 1 << 20 != 0 && guest.smap.is_on(), cr4::SMAP)
}

/// The guest's devices.
#[inline(never)] // each step of building moves the bus, and the stack is small
fn bus(guest: &GuestConfig, id: VmId, module: impl Fn(usize) -> &'static [u8]) -> Bus {
    let bus = Bus::new(&guest.name).with_memory(guest.memory).with_console(guest.console);
    let bus = if guest.apic.is_on() { bus } else { bus.without_apic() };
    let bus = match clock::unix_seconds() {
        Some(seconds) => bus.with_epoch(seconds),
        None => bus,
    };
    guest.disks.iter().fold(bus, |bus, disk| {
        let store = Box::new(DiskFrames::new(id));
        bus.with_disk(disk.place, Disk::new(module(disk.index), store))
    })
}

/// How many shadow tables a guest of this size gets.
fn table_count(guest_frames: u64) -> u64 {
    (LEAST_TABLES + guest_frames / GUEST_FRAMES_PER_TABLE).min(MOST_TABLES)
}

/// Whether the host has room for a guest: its memory, its tables, and what the host keeps about both. The heap cannot fail later.
fn check_memory(guest_frames: u64) -> Result<(), OutOfMemory> {
    let tables = table_count(guest_frames);
    let heap = (tables * HEAP_PER_TABLE + guest_frames * HEAP_PER_GUEST_FRAME).div_ceil(PAGE);
    // A page of shadow code, one of patches, and as much for what is known of it.
    let code = 3 * view_limit(guest_frames);
    let wanted = guest_frames + tables + heap + code + HOST_RESERVE;
    let had = frames::stats().free as u64;
    if had < wanted { Err(OutOfMemory { wanted, had }) } else { Ok(()) }
}

/// The CPU's extension that a back end uses.
const fn vendor(backend: Backend) -> Option<Vendor> {
    match backend {
        Backend::Depriv => None,
        Backend::Vmx => Some(Vendor::Vmx),
        Backend::Svm => Some(Vendor::Svm),
    }
}

/// Second-level tables, as many as the guest can ever need.
fn nested(id: VmId, vendor: Vendor, guest_frames: u64) -> Result<Nested, BuildError> {
    let count = SecondConfig::enough_frames(guest_frames) as u64;
    let config = SecondConfig::new(table_frames(count, Owner::Nested(id))?, guest_frames);
    Nested::new(id, vendor, config).map_err(|_| BuildError::Tables)
}

fn table_frames(count: u64, owner: Owner) -> Result<Vec<Pfn>, BuildError> {
    let mut list = Vec::with_capacity(count as usize);
    for _ in 0..count {
        list.push(frames::alloc(owner).ok_or(BuildError::Tables)?);
    }
    Ok(list)
}

/// Puts the CPU into the state that the boot protocol names.
fn enter(vm: &mut Vm, entry: Entry, guest: &GuestConfig) -> Result<(), BuildError> {
    let fail = |_| BuildError::Reset;
    if vm.code.is_on() {
        vm.mmu.set_fetch_guard(true);
        vm.world.set_fetch_guard(true);
        vm.start_window();
    }
    vm.reload_translation(ControlWrite::Reset).map_err(fail)?;
    vm.push_controls();
    if !vm.world.is_hardware() {
        enter_segments(vm, if entry.gdt.is_some() { LINUX_ENTRY } else { ENTRY })?;
    }
    vm.set_gpr(0, entry.eax);
    vm.set_gpr(3, entry.ebx);
    vm.set_gpr(4, BOOT_STACK);
    vm.set_gpr(6, entry.esi);
    let left = TableAt { base: firmware::BOOT_TABLE as u32, limit: firmware::BOOT_TABLE_LIMIT };
    let TableAt { base, limit } = entry.gdt.unwrap_or(left);
    vm.vcpu.gdtr = TableRegister { base, limit };
    let idtr = vm.world.descriptor_tables().idtr;
    vm.world.set_descriptor_tables((base, limit), idtr);
    vm.set_eip(entry.eip);
    vm.tracer.record(|| {
        let mut name = [0; 8];
        for (place, byte) in name.iter_mut().zip(guest.name.bytes()) {
            *place = byte;
        }
        Record { a: guest.memory, b: entry.eip.into(), c: u64::from_le_bytes(name), ..Record::new(Kind::VmStart) }
    });
    Ok(())
}

/// The segments that a boot loader leaves. A hardware world begins with [`ENTRY`]'s.
fn enter_segments(vm: &mut Vm, [code, data]: [Selector; 2]) -> Result<(), BuildError> {
    let fail = |_| BuildError::Reset;
    vm.load_fixed(SegReg::Cs, code, FLAT_CODE, 0).map_err(fail)?;
    vm.load_fixed(SegReg::Ss, data, FLAT_DATA, 0).map_err(fail)?;
    for reg in [SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs] {
        vm.load_once(reg, data, FLAT_DATA).map_err(fail)?;
    }
    Ok(())
}
