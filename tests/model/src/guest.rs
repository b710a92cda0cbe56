//! Guests that build page tables, in any mode.

use crate::event::{NARROW, WIDE};
use crate::machine::Machine;
use crate::reference::{LA57, LME, Mode, PAE, PG, Who};

/// Frames of the roots, but in PAE paging.
const ROOTS: [u64; 4] = [1, 3, 11, 13];
/// Frames of the PDPTs of PAE paging.
const PDPTS: u64 = 7;
/// Tables between the root's and the one above the leaf tables, from the top.
const MIDDLE: [u64; 3] = [10, 8, 9];

/// CR3 of one of the guest's four address spaces.
#[must_use]
pub fn space(mode: Mode, number: u64) -> u64 {
    match mode {
        Mode::Pae => PDPTS << 12 | (number & 3) << 5,
        Mode::Off | Mode::Legacy | Mode::Long4 | Mode::Long5 => ROOTS[number as usize & 3] << 12,
    }
}

/// Paging off, tables built anew, paging on in `mode`.
pub fn rebuild(machine: &mut Machine, mode: Mode, variant: u32) {
    machine.set_cr0(PG, false);
    // Nothing can be stale here: paging is off, and the load of CR3 below empties every cache.
    machine.checking = false;
    let long = matches!(mode, Mode::Long4 | Mode::Long5);
    machine.set_cr4(PAE, mode != Mode::Legacy);
    machine.set_cr4(LA57, mode == Mode::Long5);
    machine.set_efer(LME, long);
    match (variant >> 29 & 1 != 0, mode) {
        (true, _) => tangle(machine, mode, variant),
        (false, Mode::Legacy) => narrow(machine, variant),
        (false, _) => wide(machine, mode, variant),
    }
    machine.checking = true;
    machine.set_cr3(space(mode, u64::from(variant >> 6)));
    machine.set_cr0(PG, true);
}

fn put(machine: &mut Machine, size: u64, (frame, index): (u64, u64), entry: u64) {
    machine.write((frame << 12) + index * size, Who::Supervisor, &entry.to_le_bytes()[..size as usize]);
}

fn either(variant: u32, bit: u32, yes: u64, no: u64) -> u64 {
    if variant >> bit & 1 != 0 { yes } else { no }
}

/// The roots are directories that map themselves at the top. Frame 2: the table at 0, identity. Frame 4: the table at 2 GiB.
fn narrow(machine: &mut Machine, variant: u32) {
    for directory in ROOTS {
        put(machine, 4, (directory, 0), 0x2000 | either(variant, 0, 0x67, 0x07));
        put(machine, 4, (directory, 0x200), 0x4000 | either(variant, 1, 0x67, 0x03));
        put(machine, 4, (directory, 0x201), either(variant, 2, 0x4065, 0x2067));
        put(machine, 4, (directory, 0x3ff), directory << 12 | either(variant, 3, 0x67, 0x03));
        put(machine, 4, (directory, 1), either(variant, 4, 0xe7, 0x87 | u64::from(variant) >> 8 & 0x66));
    }
    leaves(machine, 4, &NARROW, variant);
}

/// Frames 1 to 13 hold whatever leads to another of them: each is a root, a table of every level, and a page.
fn tangle(machine: &mut Machine, mode: Mode, variant: u32) {
    let mut state = variant | 1;
    let mut random = |below: u32| {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % below
    };
    let (size, indices) = if mode == Mode::Legacy { (4, &NARROW[..]) } else { (8, &WIDE[..]) };
    for (frame, &index) in (1..14).flat_map(|frame| indices.iter().map(move |index| (frame, index))) {
        let rights = [0x67, 0x67, 0x63, 0x27, 0x65, 0x07, 0x03, 0xe7][random(8) as usize];
        let large = if size == 8 { u64::from(random(2)) << 9 } else { 0 };
        let to = if rights & 0x80 != 0 { large } else { u64::from(1 + random(13)) };
        put(machine, size, (frame, index), to << 12 | rights);
    }
    for n in 0..if mode == Mode::Pae { 16 } else { 0 } {
        put(machine, 8, (PDPTS, n), u64::from(1 + random(13)) << 12 | u64::from(random(4) != 0));
    }
}

fn leaves(machine: &mut Machine, size: u64, indices: &[u64], variant: u32) {
    let nx = either(variant, 31, 1 << 63, 0) * u64::from(size == 8 && machine.regs().efer & 0x800 != 0);
    for (n, &index) in indices.iter().enumerate() {
        let n = n as u64;
        let global = either(variant, 30, 0x100, 0);
        put(machine, size, (2, index), n << 12 | either(variant, 5, 0x67, 0x07) | global | nx);
        put(machine, size, (4, index), (n % 7 + 1) << 12 | u64::from(variant) >> n & 0x66 | 1);
    }
}

/// The same with entries of 8 bytes. Of PAE paging, frame 7 holds four PDPTs that name directories 1, 3 and 6. In long mode the
/// roots map themselves in entry 3, and lead to the directory in frame 9.
fn wide(machine: &mut Machine, mode: Mode, variant: u32) {
    let directories: &[u64] = if mode == Mode::Pae { &[1, 3, 6] } else { &[9] };
    for &directory in directories {
        put(machine, 8, (directory, 0), 0x2000 | either(variant, 0, 0x67, 0x07));
        put(machine, 8, (directory, 1), 0x4000 | either(variant, 1, 0x67, 0x03));
        let large = either(variant, 4, 0xe7, 0x87 | u64::from(variant) >> 8 & 0x66);
        put(machine, 8, (directory, 2), either(variant, 11, 0x20_0000, 0) | large);
        put(machine, 8, (directory, 3), either(variant, 2, 0x4065, 0x2067));
        put(machine, 8, (directory, 0x1fe), 0x1067);
        put(machine, 8, (directory, 0x1ff), directory << 12 | either(variant, 3, 0x67, 0x03));
    }
    leaves(machine, 8, &WIDE, variant);
    if mode == Mode::Pae {
        for (n, top) in [1, 0, 3, 6, 3, 1, 1, 6, 0, 0, 1, 1, 6, 3, 0, 1].into_iter().enumerate() {
            put(machine, 8, (PDPTS, n as u64), if top == 0 { 0 } else { top << 12 | 0x19 });
        }
        return;
    }
    let middle = if mode == Mode::Long5 { &MIDDLE[..] } else { &MIDDLE[1..] };
    let named = |index: usize| middle[index] << 12;
    for root in ROOTS {
        put(machine, 8, (root, 0), named(0) | either(variant, 7, 0x67, 0x07));
        put(machine, 8, (root, 3), root << 12 | either(variant, 8, 0x67, 0x03));
        put(machine, 8, (root, 0x1ff), named(0) | 0x67);
    }
    for (n, &table) in middle.iter().enumerate().take(middle.len() - 1) {
        put(machine, 8, (table, 0), named(n + 1) | either(variant, 9, 0x67, 0x07));
        put(machine, 8, (table, 1), if table == 8 { either(variant, 10, 0xe7, 0x87) } else { named(n + 1) | 7 });
        put(machine, 8, (table, 3), if table == 8 { 0x1067 } else { table << 12 | 0x67 });
        put(machine, 8, (table, 0x1ff), named(n + 1) | 0x67);
    }
}
