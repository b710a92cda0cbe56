//! The workloads. Each is prepared once, and run for so many operations.

use shadow_mmu::{AccessKind, Policy, SyncPolicy};

use crate::Measure;
use crate::guest::{ALL, FRAMES, FREE, Guest, entry};

/// A workload: its name in results, what one operation is, and the sizes it is measured with.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What one operation is.
    pub describe: &'static str,
    /// What the size is, if there are several.
    pub size: &'static str,
    /// The sizes.
    pub sizes: &'static [u64],
    /// From this size on the cost must be the same.
    pub flat_from: u64,
}

/// All of them.
pub const WORKLOADS: [Workload; 7] = [
    Workload { name: "fill", describe: "hidden fault: one entry filled", size: "", sizes: &[1], flat_from: 0 },
    Workload {
        name: "pte_write",
        describe: "PTE write: another frame, INVLPG, touch",
        size: "other mappings of both frames",
        sizes: &[0, 1, 4, 16, 64, 256, 1024],
        flat_from: 0,
    },
    Workload {
        name: "pte_write_among",
        describe: "PTE write: another frame, INVLPG, touch",
        size: "other pages mapped",
        sizes: &[0, 16, 64, 256, 1024, 4096],
        flat_from: 0,
    },
    Workload {
        name: "cr3",
        describe: "CR3 load of another address space, and a touch",
        size: "address spaces",
        sizes: &[1, 2, 4, 16, 64, 256],
        flat_from: 2,
    },
    Workload {
        name: "unmap",
        describe: "1,024 pages unmapped, INVLPG each; by page",
        size: "",
        sizes: &[1],
        flat_from: 0,
    },
    Workload {
        name: "unmap_cr3",
        describe: "1,024 pages unmapped, one CR3 load; by page",
        size: "",
        sizes: &[1],
        flat_from: 0,
    },
    Workload {
        name: "fork",
        describe: "1,024 used pages write-protected and copied to a child that touches them; by page",
        size: "",
        sizes: &[1],
        flat_from: 0,
    },
];

/// A policy, by the name it has in results.
#[must_use]
pub fn policy(name: &str) -> Option<Policy> {
    let sync = match name {
        "write-protect" => SyncPolicy::WriteProtect,
        "unsync" => SyncPolicy::UNSYNC,
        "vtlb" => SyncPolicy::VirtualTlb,
        _ => return None,
    };
    Some(Policy { sync, ..Policy::default() })
}

/// Names of the policies.
pub const POLICIES: [&str; 3] = ["write-protect", "unsync", "vtlb"];

/// Operations of a run whose time is taken: as many as every workload can do.
pub const TIMED: u64 = 1000;

/// Pages of a table.
const PAGES: u64 = 1024;
/// Frames of data begin here.
const DATA: u64 = 8192;

/// Runs a workload: prepares it, calls `ready`, and does operations until at least `count` are done. Returns how many.
///
/// # Panics
/// If there is no workload of that name.
pub fn run<M: Measure>(
    name: &str,
    size: u64,
    count: u64,
    guest: &mut Guest<M>,
    ready: impl FnOnce(&mut Guest<M>),
) -> u64 {
    match name {
        "fill" => fill(guest, count, ready),
        "pte_write" => remap(guest, (size, 0), count, ready),
        "pte_write_among" => remap(guest, (0, size), count, ready),
        "cr3" => cr3(guest, size, count, ready),
        "unmap" => unmap(guest, true, count, ready),
        "unmap_cr3" => unmap(guest, false, count, ready),
        "fork" => fork(guest, count, ready),
        _ => panic!("no workload {name}"),
    }
}

/// An address space in frame `directory`, whose first 4 MiB are mapped by the table in the next frame to `data`.
fn space<M: Measure>(guest: &Guest<M>, directory: u64, data: u64) {
    guest.make_space(directory);
    guest.put_entry(directory, 0, entry(directory + 1, ALL));
    for page in 0..PAGES {
        guest.put_entry(directory + 1, page, entry(data + page, ALL));
    }
}

fn touch_all<M: Measure>(guest: &mut Guest<M>, base: u64, pages: u64) {
    for page in 0..pages {
        guest.touch(base + (page << 12), AccessKind::Write);
    }
}

fn fill<M: Measure>(guest: &mut Guest<M>, count: u64, ready: impl FnOnce(&mut Guest<M>)) -> u64 {
    space(guest, FREE, DATA);
    guest.load(FREE);
    // The first links the tables.
    guest.touch(0, AccessKind::Write);
    ready(guest);
    let count = count.min(PAGES - 1);
    touch_all(guest, 1 << 12, count);
    count
}

/// One entry goes to and fro between two frames. `aliases` other pages map each of them, and `others` pages other frames.
fn remap<M: Measure>(
    guest: &mut Guest<M>,
    (aliases, others): (u64, u64),
    count: u64,
    ready: impl FnOnce(&mut Guest<M>),
) -> u64 {
    space(guest, FREE, DATA);
    for table in 0..4 {
        let frame = FREE + 8 + table;
        guest.put_entry(FREE, 1 + table, entry(frame, ALL));
        for page in 0..PAGES {
            let data = if aliases > 0 { DATA + (page & 1) } else { DATA + 2 + (table << 10 | page) % 4000 };
            guest.put_entry(frame, page, entry(data, ALL));
        }
    }
    guest.load(FREE);
    guest.touch(0, AccessKind::Write);
    touch_all(guest, 4 << 20, (2 * aliases).max(others));
    let change = |guest: &mut Guest<M>, n: u64| {
        guest.write_entry(FREE + 1, 0, entry(DATA + (n & 1), ALL));
        guest.invlpg(0);
        guest.touch(0, AccessKind::Write);
    };
    (0..4).for_each(|n| change(guest, n));
    ready(guest);
    (0..count).for_each(|n| change(guest, n));
    count
}

fn cr3<M: Measure>(guest: &mut Guest<M>, spaces: u64, count: u64, ready: impl FnOnce(&mut Guest<M>)) -> u64 {
    let directory = |n: u64| FREE + 2 * (n % spaces);
    for n in 0..spaces {
        space(guest, directory(n), DATA);
    }
    let next = |guest: &mut Guest<M>, n: u64| {
        guest.load(directory(n));
        guest.touch(0x5000, AccessKind::Write);
    };
    (0..2 * spaces).for_each(|n| next(guest, n));
    ready(guest);
    (0..count).for_each(|n| next(guest, n));
    count
}

fn unmap<M: Measure>(guest: &mut Guest<M>, invlpg: bool, count: u64, ready: impl FnOnce(&mut Guest<M>)) -> u64 {
    space(guest, FREE, DATA);
    guest.load(FREE);
    touch_all(guest, 0, PAGES);
    ready(guest);
    let count = count.min(PAGES);
    for page in 0..count {
        guest.write_entry(FREE + 1, page, 0);
        if invlpg {
            guest.invlpg(page << 12);
        }
    }
    if !invlpg {
        guest.load(FREE);
    }
    count
}

fn fork<M: Measure>(guest: &mut Guest<M>, count: u64, ready: impl FnOnce(&mut Guest<M>)) -> u64 {
    let child = FREE + 2;
    space(guest, FREE, DATA);
    guest.load(FREE);
    touch_all(guest, 0, PAGES);
    ready(guest);
    let count = count.min(PAGES);
    guest.make_space(child);
    for page in 0..count {
        let shared = entry(DATA + page, 0x65);
        guest.write_entry(FREE + 1, page, shared);
        guest.write_entry(child + 1, page, shared);
    }
    guest.write_entry(child, 0, entry(child + 1, ALL));
    guest.load(FREE);
    guest.load(child);
    for page in 0..count {
        guest.touch(page << 12, AccessKind::Read);
    }
    count
}

const _: () = assert!(DATA + 4096 <= FRAMES, "data fits");
