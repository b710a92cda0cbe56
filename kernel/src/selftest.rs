//! The self-test behind the command-line word `selftest`: guests of a few bytes of ring-1 code, and what the last gates refuse.
//! Prints one `ok` or `not ok` line for each, and ends with code 0x10 or 0x11.

mod guest;

use gnomon_hw::frames::{self, Owner};
use gnomon_hw::power::{self, ExitCode};
use gnomon_hw::{Exit, Irq, RefusedDescriptor, SegReg, Table, VmId, idle, time};
use guest::{CODE, DATA, Guest, READ_ONLY, RING1_CODE, UNMAPPED};
use shadow_mmu::{FlushPlan, Gva, Perms, Pfn, Spte, TableMem};

const CLI: u8 = 0xfa;

/// Counts what was not as it should be.
#[derive(Default)]
struct Results {
    failed: u32,
}

impl Results {
    fn check(&mut self, what: &str, good: bool) {
        self.failed += u32::from(!good);
        log::info!("{} {what}", if good { "ok" } else { "not ok" });
    }
}

/// Runs what `how` names: `panic` and `overflow` show the reports of a panic and of a host fault; anything else is the whole
/// test.
pub(crate) fn run(how: &str) -> ! {
    match how {
        "panic" => panic!("asked for by the command line"),
        "overflow" => log::info!("not ok: the stack has room for {}", overflow(1)),
        _ => {}
    }
    let mut results = Results::default();
    match (Guest::new(VmId(1)), Guest::new(VmId(2))) {
        (Some(mut first), Some(mut second)) => {
            traps(&mut results, &mut first);
            interrupts(&mut results, &mut first);
            entry(&mut results, &mut first);
            descriptors(&mut results, &mut first);
            foreign_frames(&mut results, &mut first, &second);
            linear(&mut results, &mut first);
            two_worlds(&mut results, &mut first, &mut second);
            costs(&mut first);
            endings(&mut results, first, second);
        }
        _ => results.check("build two guests", false),
    }
    let code = if results.failed == 0 { ExitCode::Ok } else { ExitCode::Guest };
    power::exit(code, None, "selftest")
}

/// Recurses into the page below the stack.
fn overflow(depth: u64) -> u64 {
    if depth == u64::MAX {
        return depth;
    }
    let here = core::hint::black_box([depth; 64]);
    core::hint::black_box(overflow(depth + 1)) + here[0]
}

fn traps(results: &mut Results, guest: &mut Guest) {
    for (i, gpr) in guest.world.context_mut().gpr.iter_mut().enumerate() {
        *gpr = 0x1111_1111 * i as u64;
    }
    let before = guest.world.context().gpr;
    let exit = guest.run(&[CLI]);
    let context = *guest.world.context();
    results.check("CLI in ring 1 is a #GP with error 0", exit == Exit::Vector(13) && context.error == 0);
    results.check("the context is where the guest was", context.rip == CODE.into() && context.cs == guest::CS.into());
    // Compatibility-mode code cannot reach r8 to r15; index 4 is unused.
    let same = (0..16).filter(|&i| i != 4).all(|i| before[i] == context.gpr[i]);
    results.check("general registers come through", same);

    let [a, b, c, d] = UNMAPPED.to_le_bytes();
    let exit = guest.run(&[0xa1, a, b, c, d]);
    let fault = exit == Exit::Vector(14) && guest.world.cr2() == UNMAPPED.into() && guest.world.context().error == 0;
    results.check("a read of an unmapped page is a #PF with its address", fault);

    let [a, b, c, d] = READ_ONLY.to_le_bytes();
    let exit = guest.run(&[0xa3, a, b, c, d]);
    results.check(
        "a write to a read-only page is a #PF in ring 1",
        exit == Exit::Vector(14) && guest.world.context().error == 3,
    );

    let exit = guest.run(&[0xcd, 0x80]);
    let after = guest.world.context().rip == u64::from(CODE) + 2;
    results.check("INT 0x80 arrives as itself, after the instruction", exit == Exit::Vector(0x80) && after);
    results.check("INT3 arrives as #BP", guest.run(&[0xcc]) == Exit::Vector(3));
    let exit = guest.run(&[0xcd, 0x21]);
    let at = guest.world.context().rip == CODE.into();
    results.check("any other INT n arrives as #GP at the instruction", exit == Exit::Vector(13) && at);
    results.check("INT to a host interrupt's vector is a #GP", guest.run(&[0xcd, 0xe0]) == Exit::Vector(13));
    results.check("SYSCALL is a #UD", guest.run(&[0x0f, 0x05]) == Exit::Vector(6));
    results.check("SYSENTER is a #GP", guest.run(&[0x0f, 0x34]) == Exit::Vector(13));
}

fn interrupts(results: &mut Results, guest: &mut Guest) {
    let start = time::tsc();
    time::arm_timer(start + time::tsc_hz() / 1000);
    let exit = guest.run(&[0xeb, 0xfe]);
    results.check("the host's timer ends a run in ring 1", exit == Exit::Interrupt(Irq::TIMER));
    time::arm_timer(time::tsc() + time::tsc_hz() / 1000);
    results.check("the host's timer ends a wait", idle::wait() == Irq::TIMER);
    time::arm_timer(0);
    results.check("a deadline in the past interrupts at once", idle::wait() == Irq::TIMER);
}

fn entry(results: &mut Results, guest: &mut Guest) {
    guest.run(&[CLI]);
    let before = *guest.world.context();
    guest.world.context_mut().cs = 0x51;
    let exit = guest.world.run();
    let mut after = *guest.world.context();
    results.check(
        "a selector without a descriptor fails the entry with #GP",
        exit == Exit::EntryFailed(13) && after.error == 0x50,
    );
    (after.cs, after.vector, after.error) = (before.cs, before.vector, before.error);
    (after.gpr[4], after.rflags) = (before.gpr[4], before.rflags);
    // R8 to R15 are no registers of a 32-bit guest; where they would be, the CPU has pushed.
    after.gpr[8..].copy_from_slice(&before.gpr[8..]);
    results.check("a failed entry leaves the context alone", after == before);
    results.check("the guest runs on after a failed entry", guest.run(&[CLI]) == Exit::Vector(13));

    // PUSH EFLAGS with VM set, CS, EIP; IRET. TCG enters virtual-8086 mode, others run on or fault.
    let iret = [0x68, 0x02, 0x02, 0x02, 0x00, 0x6a, 0x09, 0x68, 0x00, 0x10, 0x00, 0x00, 0xcf];
    time::arm_timer(time::tsc() + time::tsc_hz() / 100);
    let exit = guest.run(&iret);
    log::info!("IRET with VM=1: {exit:?}");
    results.check("IRET to virtual-8086 mode comes back to the host", !matches!(exit, Exit::EntryFailed(_)));
    if !matches!(exit, Exit::Interrupt(_)) {
        idle::wait();
    }
}

fn descriptors(results: &mut Results, guest: &mut Guest) {
    let world = &mut guest.world;
    let mut refused = |raw, why| world.set_descriptor(Table::Gdt, 3, raw) == Err(why);
    results.check("a 64-bit code descriptor is refused", refused(RING1_CODE | 1 << 53, RefusedDescriptor::Long));
    results.check("a descriptor of ring 0 is refused", refused(RING1_CODE & !(3 << 45), RefusedDescriptor::Privilege));
    results.check("a call gate is refused", refused(0x0000_ec00_0009_1000, RefusedDescriptor::System));
    let beyond = world.set_descriptor(Table::Gdt, gnomon_hw::World::GDT_GUEST_ENTRIES, RING1_CODE);
    results.check("the host's part of the GDT is refused", beyond == Err(RefusedDescriptor::Index));
    let host = world.load_segment(SegReg::Fs, gnomon_hw::World::GDT_GUEST_ENTRIES << 3);
    results.check("a host selector is refused", host.is_err_and(|f| f.vector == 13));

    let absent = RING1_CODE & !(1 << 47);
    let set = world.set_descriptor(Table::Ldt, 1, absent).is_ok();
    world.set_ldt(true);
    let load = world.load_segment(SegReg::Gs, 1 << 3 | 4 | 1);
    results
        .check("a segment that is not present is a #NP", set && load.is_err_and(|f| f.vector == 11 && f.error == 0xc));
    let set = world.set_descriptor(Table::Ldt, 1, 0x00cf_b300_0000_ffff).is_ok();
    results.check("an LDT segment loads", set && world.load_segment(SegReg::Gs, 1 << 3 | 4 | 1).is_ok());
    results.check("and is there", world.segment(SegReg::Gs) == 0xd);
}

fn foreign_frames(results: &mut Results, guest: &mut Guest, other: &Guest) {
    let [root, _, _, l1] = guest.table_frames;
    let all = Perms::new(true, true, true);
    let kernel = Pfn::new(0x101);
    let free = (0..0x1000).map(Pfn::new).find(|f| frames::owner(*f) == Owner::Free).unwrap_or(kernel);
    for (what, frame) in [
        ("a free frame is refused", free),
        ("a frame of another guest is refused", other.code),
        ("a table of another guest is refused", other.table_frames[3]),
        ("its own table is refused as a page", l1),
        ("the kernel's code is refused", kernel),
        ("a frame outside memory is refused", Pfn::new(0xf_ffff_ffff)),
    ] {
        results.check(what, guest.tables.store(l1, 9, Spte::leaf(frame, all)).is_err());
    }
    results.check("the window of a root is refused", guest.tables.store(root, 256, Spte::table(l1)).is_err());
    results
        .check("a foreign table is not written", guest.tables.store(other.table_frames[3], 9, Spte::ABSENT).is_err());
    results.check("owners are as allocated", frames::owner(guest.code) == Owner::Guest(VmId(1)));
    frames::free(kernel);
    results.check("the kernel's frames are not freed", frames::owner(kernel) == Owner::Host);
    frames::free(guest.code);
    results.check("a mapped frame is not freed", frames::owner(guest.code) == Owner::Guest(VmId(1)));
}

fn linear(results: &mut Results, guest: &mut Guest) {
    let world = &mut guest.world;
    results.check("write_linear writes", world.write_linear(DATA + 0xffc, &[1, 2, 3, 4]).is_ok());
    let mut bytes = [0; 4];
    results.check("read_linear reads it", world.read_linear(DATA + 0xffc, &mut bytes).is_ok() && bytes == [1, 2, 3, 4]);
    let fault = world.write_linear(READ_ONLY, &[1]);
    results.check(
        "write_linear to a read-only page is refused",
        fault.is_err_and(|f| f.address == READ_ONLY && f.error == 3),
    );
    results.check("read_linear of it is not", world.read_linear(READ_ONLY, &mut bytes).is_ok());
    let fault = world.write_linear(DATA + 0xffe, &[0; 4]);
    results.check(
        "write_linear into the next, unmapped page is refused",
        fault.is_err_and(|f| f.address == DATA + 0x1000),
    );
    results.check("read_linear past 4 GiB is refused", world.read_linear(0xffff_fffe, &mut bytes).is_err());
}

fn two_worlds(results: &mut Results, first: &mut Guest, second: &mut Guest) {
    const FLD1: [u8; 3] = [0xd9, 0xe8, CLI];
    const FLDZ: [u8; 3] = [0xd9, 0xee, CLI];
    let [a, b, c, d] = DATA.to_le_bytes();
    let store = [0xd9, 0x1d, a, b, c, d, CLI];
    let mut bytes = [0; 4];
    let gs = first.world.segment(SegReg::Gs);
    first.run(&FLD1);
    second.run(&FLDZ);
    first.run(&store);
    let one = first.world.read_linear(DATA, &mut bytes).is_ok() && bytes == one_f32_bits().to_le_bytes();
    results.check("FPU registers stay with their world", one);
    second.run(&store);
    let zero = second.world.read_linear(DATA, &mut bytes).is_ok() && bytes == [0; 4];
    results.check("and so do the other's", zero);
    results.check("segment registers stay with their world", first.world.segment(SegReg::Gs) == gs && gs != 0);
    results.check("the other world has its own", second.world.segment(SegReg::Gs) == 0);

    // MOV EAX, GS:[DATA]; CLI. Without its hidden part, GS would be null: a #GP at the first instruction, at least on Bochs.
    let dropped = first.world.set_descriptor(Table::Ldt, 1, 0).is_ok();
    second.run(&[CLI]);
    let exit = first.run(&[0x65, 0xa1, a, b, c, d, CLI]);
    let whole = exit == Exit::Vector(13) && first.world.context().rip == u64::from(CODE) + 6;
    let same = first.world.segment(SegReg::Gs) == gs;
    results.check("a segment register outlives its descriptor, also over a switch of worlds", dropped && whole && same);
}

/// Prints what the hot paths cost in ticks of the TSC; under `-icount shift=0` these are instructions.
fn costs(guest: &mut Guest) {
    guest.run(&[CLI]);
    cost("a round trip by CLI", || {
        guest.world.run();
    });
    let l1 = guest.table_frames[3];
    let leaf = Spte::leaf(guest.code, Perms::new(false, false, true));
    cost("storing a shadow entry", || {
        let _ = core::hint::black_box(guest.tables.store(l1, 1, leaf));
    });
    cost("loading a word of a guest frame", || {
        let _ = core::hint::black_box(guest.window.load_u32(guest.code, 8));
    });
    let mut word = [0; 4];
    cost("reading a word by linear address", || {
        let _ = core::hint::black_box(guest.world.read_linear(DATA, &mut word));
    });
    cost("invalidating a page", || guest.world.flush(FlushPlan::page(Gva::new(DATA.into()))));
    cost("a round trip with a new CR3", || {
        guest.world.flush(FlushPlan::ALL);
        guest.world.run();
    });
}

fn cost(what: &str, mut operation: impl FnMut()) {
    const ROUNDS: u64 = 1000;
    let start = time::tsc();
    for _ in 0..ROUNDS {
        operation();
    }
    log::info!("{what}: {} ticks", (time::tsc() - start) / ROUNDS);
}

/// 1.0 as the FPU stores it; the kernel is built without floats.
const fn one_f32_bits() -> u32 {
    0x3f80_0000
}

fn endings(results: &mut Results, mut first: Guest, second: Guest) {
    let free = frames::stats().free;
    let released = first.tables.retire_root(first.table_frames[0]).is_ok();
    let exit = first.world.run();
    results.check("without a root the guest faults at its first fetch", released && exit == Exit::Vector(14));
    drop(first);
    drop(second);
    frames::release_all(VmId(1));
    frames::release_all(VmId(2));
    let stats = frames::stats();
    results.check("all frames come back", stats.guest == 0 && stats.table == 0 && stats.free > free);
}
