//! Guests to begin with: paging off, tables built anew by the guest itself, paging on. `variant` picks what they hold.

use super::machine::{Machine, SUPERVISOR};
use super::reference::Mode;
use crate::{cr0, cr4, efer};

/// Entries of a directory and of a table of 1024 that the random guests use.
pub(super) const PDES: [u64; 5] = [0, 1, 0x200, 0x201, 0x3ff];
pub(super) const PTES: [u64; 9] = [0, 1, 2, 3, 5, 0x200, 0x201, 0x3fe, 0x3ff];
/// Entries of tables of 512.
pub(super) const WIDE: [u64; 7] = [0, 1, 2, 3, 5, 0x1fe, 0x1ff];

/// The top tables of long mode: PML4s in these frames, and the PML5 over both.
pub(super) const PML4S: [u64; 2] = [7, 8];
pub(super) const PML5: u64 = 9;

/// Pages whose translations 32-bit guests use.
pub(super) fn narrow_pages() -> Vec<u64> {
    PDES.iter().flat_map(|pde| PTES.iter().map(move |pte| pde << 10 | pte)).collect()
}

/// A page number in long mode, by the index at each level: sign-extended from bit 47 of the address.
const fn long_page([l4, l3, l2, l1]: [u64; 4]) -> u64 {
    let high = if l4 & 0x100 != 0 { 0xffff << 36 } else { 0 };
    high | l4 << 27 | l3 << 18 | l2 << 9 | l1
}

/// Pages whose translations 64-bit guests use, most often first.
pub(super) fn long_pages() -> Vec<u64> {
    let low = [0, 1, 2, 3].into_iter().flat_map(|l2| WIDE.map(|l1| [0, 0, l2, l1]));
    // A 1 GiB page, aliases in the upper half, and the recursive window at the top.
    let gib = [0, 1, 2, 5].map(|l1| [0, 1, 0, l1]);
    let upper = [0, 1, 2, 3].map(|l1| [272, 0, 0, l1]);
    let own = [[511, 511, 511, 511], [511, 511, 511, 0], [511, 511, 0, 0], [511, 0, 0, 0], [511, 0, 0, 1]];
    let others = [[1, 0, 0, 0], [1, 0, 0, 5], [511, 1, 0, 0]];
    low.chain(gib).chain(upper).chain(own).chain(others).map(long_page).collect()
}

/// Addresses in long mode that no shadow entry can hold, or no CPU.
pub(super) const STRANGE: [u64; 6] = [
    0xffff_8000_0000_5000,
    0xffff_87ff_ffff_f000,
    0x0000_8000_0000_0000,
    0x0001_0000_0000_5000,
    0xff01_0000_0000_5000,
    0x8000_0000_0000_0000,
];

/// Paging off, tables built anew, paging on in `mode`.
pub(super) fn rebuild(machine: &mut Machine, variant: u64, mode: Mode) {
    machine.set_cr0(cr0::PG, false);
    // Nothing can be stale here: paging is off, and the load of CR3 below empties every cache.
    machine.checking = false;
    let long = matches!(mode, Mode::Four | Mode::Five);
    for (bit, on) in [(cr4::PAE, mode != Mode::Two), (cr4::LA57, mode == Mode::Five)] {
        if (machine.controls.cr4 & bit != 0) != on {
            machine.flip_cr4(bit);
        }
    }
    if (machine.controls.efer & efer::LME != 0) != long {
        machine.flip_efer(efer::LME);
    }
    let root = match mode {
        Mode::Pae => {
            build_pae(machine, variant);
            7 << 12 | (variant >> 6 & 1) << 5
        }
        Mode::Four | Mode::Five => build_long(machine, variant, mode == Mode::Five),
        Mode::Off | Mode::Two => {
            build_narrow(machine, variant);
            (variant >> 5 & 2 | 1) << 12
        }
    };
    machine.pages = if long { long_pages() } else { narrow_pages() };
    machine.checking = true;
    machine.set_cr3_raw(root);
    assert!(machine.set_cr0(cr0::PG, true));
}

fn put(machine: &mut Machine, frame: u64, index: u64, entry: u64) {
    machine.write(frame << 12 | index << 3, SUPERVISOR, entry);
    machine.write(frame << 12 | index << 3 | 4, SUPERVISOR, entry >> 32);
}

fn no_execute(machine: &Machine, variant: u64) -> u64 {
    if machine.controls.efer & efer::NXE != 0 { (variant >> 31 & 1) << 63 } else { 0 }
}

/// Frames 1 and 3: directories. Frames 2 and 4: tables. Frame 6: directory that maps itself and, as a table, directory 1.
fn build_directories(machine: &mut Machine, variant: u64) {
    let nx = no_execute(machine, variant);
    for directory in [1, 3] {
        put(machine, directory, 0, 2 << 12 | if variant & 1 != 0 { 0x67 } else { 0x07 });
        put(machine, directory, 1, 4 << 12 | if variant & 2 != 0 { 0x67 } else { 0x03 } | nx);
        let large = if variant & 16 != 0 { 0xe7 } else { 0x87 | variant >> 8 & 0x66 };
        put(machine, directory, 2, (variant >> 18 & 1) << 21 | large);
        put(machine, directory, 3, if variant & 4 != 0 { 4 << 12 | 0x65 } else { 2 << 12 | 0x67 });
    }
    put(machine, 6, 0x1fe, 1 << 12 | 0x67);
    put(machine, 6, 0x1ff, 6 << 12 | if variant & 8 != 0 { 0x67 } else { 0x03 });
    for (n, &index) in WIDE.iter().enumerate() {
        let n = n as u64;
        put(machine, 2, index, n << 12 | if variant & 32 != 0 { 0x67 } else { 0x07 } | nx);
        put(machine, 4, index, (n + 1) << 12 | variant >> n & 0x66 | 1);
    }
}

/// Frame 7: two PDPTs, with the directories at 0 and 2 GiB in the one and the other way round in the other, and 6 at 3 GiB.
fn build_pae(machine: &mut Machine, variant: u64) {
    for (n, top) in [1, 0, 3, 6, 3, 1, 1, 6].into_iter().enumerate() {
        put(machine, 7, n as u64, if top == 0 { 0 } else { top << 12 | 0x19 });
    }
    build_directories(machine, variant);
}

/// Frame 5: PDPT, with directories and a page of 1 GiB. Frames 7 and 8: PML4s that map themselves. Frame 9: PML5.
fn build_long(machine: &mut Machine, variant: u64, five: bool) -> u64 {
    let marks = |bit: u32, marked: u64, bare: u64| if variant >> bit & 1 != 0 { marked } else { bare };
    put(machine, 5, 0, 1 << 12 | marks(9, 0x67, 0x07));
    put(machine, 5, 1, marks(10, 0xe7, 0x83 | variant >> 12 & 0x66));
    put(machine, 5, 511, 6 << 12 | 0x67);
    for pml4 in PML4S {
        put(machine, pml4, 0, 5 << 12 | marks(11, 0x67, 0x27));
        put(machine, pml4, 1, if pml4 == 8 { 5 << 12 | 0x65 } else { 0 });
        put(machine, pml4, 256, 5 << 12 | 0x67);
        put(machine, pml4, 272, 5 << 12 | marks(13, 0x67, 0x03));
        put(machine, pml4, 511, pml4 << 12 | marks(14, 0x63, 0x07));
    }
    build_directories(machine, variant);
    if !five {
        return PML4S[variant as usize >> 15 & 1] << 12;
    }
    put(machine, PML5, 0, 7 << 12 | marks(16, 0x67, 0x07));
    put(machine, PML5, 1, 7 << 12 | 0x67);
    put(machine, PML5, 511, marks(17, 7, 8) << 12 | 0x27);
    PML5 << 12
}

/// Frame 1: directory. Frame 2: its first table, identity. Frame 3: second directory. Frame 4: table at 2 GiB. The directory
/// maps itself at the top.
fn build_narrow(machine: &mut Machine, variant: u64) {
    let put = |machine: &mut Machine, frame: u64, index: u64, value: u64| {
        machine.write(frame << 12 | index << 2, SUPERVISOR, value);
    };
    for directory in [1, 3] {
        put(machine, directory, 0, 2 << 12 | if variant & 1 != 0 { 0x67 } else { 0x07 });
        put(machine, directory, 0x200, 4 << 12 | if variant & 2 != 0 { 0x67 } else { 0x03 });
        put(machine, directory, 0x201, if variant & 4 != 0 { 4 << 12 | 0x65 } else { 2 << 12 | 0x67 });
        put(machine, directory, 0x3ff, directory << 12 | if variant & 8 != 0 { 0x67 } else { 0x03 });
        put(machine, directory, 1, if variant & 16 != 0 { 0xe7 } else { 0x87 | variant >> 8 & 0x66 });
    }
    for (n, &index) in PTES.iter().enumerate() {
        put(machine, 2, index, (n as u64) << 12 | if variant & 32 != 0 { 0x67 } else { 0x07 });
        put(machine, 4, index, (n as u64 % 7 + 1) << 12 | variant >> n & 0x66 | 1);
    }
}
