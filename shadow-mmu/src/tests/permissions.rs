//! Exhaustive: every combination of the bits that decide about rights, against every access and every control bit that matters, in
//! each format. The idea is that of the access test of kvm-unit-tests.
//!
//! With two levels all combinations of both entries are tried. With four and five that would be too many, so they are tried in
//! slices that together hold every pair: all rights of all levels with everything else set, and every bit of each two levels with
//! the others granting everything; the latter for each size of page.

use super::cpu::Cpu;
use super::machine::{Mmu, SUPERVISOR, Setup, USER, new_mmu};
use super::memory::{Memory, gfn_of};
use super::reference::{self, State, Verdict};
use crate::{
    Access, AccessKind, ControlWrite, Controls, Fault, Gpa, Gva, Outcome, Policy, Privilege, TranslateError, cr0, cr4,
    efer,
};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
/// PS, or PAT in a PTE.
const PS: u64 = 0x80;
const NX: u64 = 1 << 63;
/// A reserved bit in every entry of 8 bytes: above MAXPHYADDR.
const RSVD: u64 = 1 << 40;
/// Protection key 1.
const KEY: u64 = 1 << 59;
/// Everything granted.
const FULL: u64 = P | W | U | A | D;

/// The table of each level, L1 first, is in this frame. A large page is at frame 0, which holds no table.
const TABLES: [u64; 5] = [1, 2, 3, 4, 5];
const TARGET: u64 = 6 << 12;
/// The index of the entry at each level, L1 first.
const LONG_INDEX: [u64; 5] = [7, 0, 2, 5, 0];

const PRIVILEGES: [Privilege; 3] = [SUPERVISOR, Privilege::SupervisorAc, USER];

fn accesses() -> impl Iterator<Item = Access> {
    [AccessKind::Read, AccessKind::Write, AccessKind::Fetch]
        .into_iter()
        .flat_map(|kind| PRIVILEGES.map(|privilege| Access { kind, privilege }))
}

/// The `n`th combination of `bits`.
fn subset(bits: &[u64], n: usize) -> u64 {
    bits.iter().enumerate().filter(|(i, _)| n >> i & 1 != 0).map(|(_, bit)| bit).sum()
}

/// Every combination of `bits`.
fn subsets(bits: &[u64]) -> Vec<u64> {
    (0..1 << bits.len()).map(|n| subset(bits, n)).collect()
}

struct Bench {
    mmu: Mmu,
    twin: Memory,
    state: State,
    cpu: Cpu,
    gva: u64,
    /// L1 first.
    entries: [u64; 5],
}

impl Bench {
    fn new(controls: Controls) -> Self {
        let policy = Policy { reuse_detection: false, ..Policy::DEFAULT };
        let setup = Setup { pool: 32, policy, caching: false, stepping: false };
        let (mmu, twin) = (new_mmu(setup), Memory::new());
        let mut bench = Self { mmu, twin, state: State::default(), cpu: Cpu::new(false), gva: 0, entries: [0; 5] };
        // The latched entry of PAE paging.
        bench.store(5 << 12, &(TABLES[1] << 12 | 1).to_le_bytes());
        bench.state = bench.state.load(&bench.twin, controls, ControlWrite::Reset).expect("good tables");
        let plan = bench.mmu.load_controls(controls, ControlWrite::Reset).expect("good tables");
        bench.cpu.smep = bench.state.smep() && !bench.state.long();
        bench.cpu.smap = bench.state.smap() && !bench.state.long();
        bench.cpu.execute(bench.mmu.root(), plan);
        let levels = bench.state.levels();
        bench.gva = (1..=levels).map(|level| LONG_INDEX[level as usize - 1] << bench.state.shift(level)).sum();
        bench
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        self.twin.store(Gpa::new(at), bytes);
        self.mmu.mem().store(Gpa::new(at), bytes);
        let plan = self.mmu.on_write(Gpa::new(at), bytes.len());
        self.cpu.execute(self.mmu.root(), plan);
    }

    /// Stores the entry of `level` if it is not there as it is, by two writes if it has two halves.
    fn put(&mut self, level: usize, flags: u64) {
        let large = level > 1 && flags & PS != 0;
        let frame = match level {
            _ if large || flags & P == 0 => 0,
            1 => TARGET,
            _ => TABLES[level - 2] << 12,
        };
        let (size, at) = self.place(level);
        let entry = frame | flags;
        self.entries[level - 1] = entry;
        let now = u64::from(self.twin.word(at)) | u64::from(if size == 8 { self.twin.word(at + 4) } else { 0 }) << 32;
        if now != entry {
            for (n, half) in entry.to_le_bytes()[..size].chunks(4).enumerate() {
                self.store(at + n as u64 * 4, half);
            }
        }
    }

    /// Bytes of an entry, and where that of `level` is.
    fn place(&self, level: usize) -> (usize, u64) {
        let size = if self.state.mode() == reference::Mode::Two { 4 } else { 8 };
        (size, (TABLES[level - 1] << 12) + LONG_INDEX[level - 1] * size as u64)
    }

    fn put_all(&mut self, flags: &[u64]) {
        for (n, &flags) in flags.iter().enumerate() {
            self.put(n + 1, flags);
        }
    }

    /// Every access, each from these entries anew.
    fn check_all(&mut self, flags: &[u64]) {
        for access in accesses() {
            self.put_all(flags);
            self.check(access);
        }
    }

    fn finish(&self) {
        assert_eq!(self.mmu.mem().first_difference(&self.twin), None);
        self.mmu.audit().expect("sound");
    }

    fn real(&mut self, access: Access) -> Access {
        self.cpu.execute(self.mmu.root_for(access.privilege), crate::FlushPlan::none());
        if self.state.long() { access.with_privilege(USER) } else { access }
    }

    fn check(&mut self, access: Access) {
        let gva = Gva::new(self.gva);
        let (expected, _) = reference::access(&self.twin, &self.state, self.gva, access, false);
        let probed = match self.mmu.probe(gva, access) {
            Ok(gpa) => Verdict::At(gpa.raw()),
            Err(TranslateError::Fault(fault)) => Verdict::Fault(fault.error.bits()),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(probed, expected, "{access:?} {:x?}", self.entries);
        let real = self.real(access);
        if self.cpu.access(self.mmu.tables(), gva, real).is_none() {
            let (expected, _) = reference::access(&self.twin, &self.state, self.gva, access, true);
            let (outcome, plan) = self.mmu.on_fault(Fault { gva, access });
            self.cpu.execute(self.mmu.root_for(access.privilege), plan);
            match (outcome, expected) {
                (Outcome::Inject(fault), Verdict::Fault(error)) => {
                    assert_eq!(fault.error.bits(), error, "{access:?} {:x?}", self.entries);
                }
                (Outcome::Resume, Verdict::At(_)) => {
                    assert!(self.cpu.access(self.mmu.tables(), gva, real).is_some(), "{access:?} {:x?}", self.entries);
                }
                (Outcome::EmulateFetch(gpa), Verdict::At(target)) => {
                    assert!(self.state.long() && access.kind == AccessKind::Fetch && gpa.raw() == target);
                }
                (Outcome::EmulateWrite(gpa), Verdict::At(target)) => {
                    assert!(self.state.smap() && !self.state.wp() && !self.state.long() && gpa.raw() == target);
                }
                other => panic!("{access:?} {:x?}: {other:?}", self.entries),
            }
        }
        for level in 1..=self.state.levels() as usize {
            let (_, at) = self.place(level);
            assert_eq!(self.mmu.mem().word(at), self.twin.word(at), "{access:?} {:x?}: A and D", self.entries);
        }
        // Whatever the shadow allows now, in any view, the guest's tables allow without another mark.
        for other in accesses() {
            let real = self.real(other);
            if let Some(pfn) = self.cpu.access(self.mmu.tables(), gva, real) {
                let target = gfn_of(pfn).expect("a frame of the guest") << 12;
                let (verdict, marked) = reference::access(&self.twin, &self.state, self.gva, other, false);
                let at = matches!(verdict, Verdict::At(at) if at >> 12 == target >> 12);
                assert!(at && marked, "{access:?}, then {other:?}: {verdict:?} {:x?}", self.entries);
            }
        }
    }
}

/// Every combination of the control bits that matter in a format.
fn controls(base: Controls, cr4_bits: &[u64], nxe: bool, pkrus: &[u32]) -> Vec<Controls> {
    let mut all = Vec::new();
    for (cr0, cr4, efer) in subsets(&[cr0::WP]).into_iter().flat_map(|cr0| {
        subsets(cr4_bits).into_iter().flat_map(move |cr4| {
            subsets(if nxe { &[efer::NXE] } else { &[] }).into_iter().map(move |efer| (cr0, cr4, efer))
        })
    }) {
        for &pkru in if cr4 & cr4::PKE != 0 { pkrus } else { &[0] } {
            let cr0 = base.cr0 | cr0::PE | cr0::PG | cr0;
            all.push(Controls { cr0, cr4: base.cr4 | cr4, efer: base.efer | efer, pkru, ..base });
        }
    }
    all
}

fn two_levels(base: Controls, cr4_bits: &[u64], bits: &[u64], nxe: bool) {
    for controls in controls(base, cr4_bits, nxe, &[]) {
        let mut bench = Bench::new(controls);
        for pde in subsets(bits) {
            for pte in subsets(bits) {
                // An absent entry, whatever else is in it, needs to be tried with one entry at the other level only.
                if pde & P == 0 && pte != 7 || pte & P == 0 && pde != 7 {
                    continue;
                }
                bench.check_all(&[pte, pde]);
            }
        }
        bench.finish();
    }
}

#[test]
fn of_two_levels() {
    let base = Controls { cr3: TABLES[1] << 12, ..Controls::default() };
    two_levels(base, &[cr4::PSE, cr4::SMEP, cr4::SMAP], &[P, W, U, A, D, PS], false);
}

#[test]
fn of_pae() {
    let base = Controls { cr3: 5 << 12, cr4: cr4::PAE, ..Controls::default() };
    two_levels(base, &[cr4::SMEP, cr4::SMAP], &[P, W, U, A, D, PS, NX], true);
}

fn long(levels: usize) -> Controls {
    let la57 = if levels == 5 { cr4::LA57 } else { 0 };
    Controls { cr3: TABLES[levels - 1] << 12, cr4: cr4::PAE | la57, efer: efer::LME, ..Controls::default() }
}

/// Key 1 allows all, denies writes, denies all.
const PKRUS: [u32; 3] = [0, 0x8, 0x4];

/// All rights of all levels, to a page of 4 KiB with protection key 1.
fn every_right(levels: usize) {
    let rights = subsets(&[W, U, NX]);
    for controls in controls(long(levels), &[cr4::SMEP, cr4::SMAP, cr4::PKE], true, &PKRUS) {
        if controls.efer & efer::NXE == 0 && controls.cr4 & cr4::PKE != 0 {
            // NX is reserved here, which the other slice tries.
            continue;
        }
        let mut bench = Bench::new(controls);
        let nxe = controls.efer & efer::NXE != 0;
        for n in 0..1usize << (3 * levels) {
            let of = |level: usize| rights[n >> (3 * level) & 7];
            if !nxe && (0..levels).any(|level| of(level) & NX != 0) {
                continue;
            }
            let flags: Vec<u64> =
                (0..levels).map(|level| P | A | D | of(level) | if level == 0 { KEY } else { 0 }).collect();
            bench.put_all(&flags);
            for access in accesses() {
                bench.check(access);
            }
        }
        bench.finish();
    }
}

/// Every bit of each two levels, the others granting everything, to a page of each size.
fn every_pair(levels: usize) {
    let bits = [P, W, U, A, D, PS, NX, RSVD];
    let some = controls(long(levels), &[cr4::SMEP, cr4::SMAP], true, &[]);
    for controls in some {
        let mut bench = Bench::new(controls);
        for leaf in 1..=3usize {
            for (one, other) in (leaf..=levels).flat_map(|one| (leaf..one).map(move |other| (one, other))) {
                pair(&mut bench, levels, (leaf, one, other), &bits);
            }
        }
        bench.finish();
    }
}

fn pair(bench: &mut Bench, levels: usize, (leaf, one, other): (usize, usize, usize), bits: &[u64]) {
    // D of a table entry, and PS above the leaf (which would be another leaf, or is reserved), are tried alone.
    let table_bits: Vec<u64> = bits.iter().copied().filter(|&bit| bit != D && bit != PS).collect();
    let of = |level: usize| if level == leaf { subsets(bits) } else { subsets(&table_bits) };
    for upper in of(one).into_iter().chain([FULL | PS]) {
        for lower in of(other) {
            let boring = |flags: u64| flags & (P | RSVD) != P;
            if boring(upper) && lower != FULL & !D && lower != FULL || boring(lower) && upper != FULL & !D {
                continue;
            }
            let mut flags = [FULL; 5];
            flags[leaf - 1] |= if leaf > 1 { PS } else { 0 };
            flags[one - 1] = upper;
            flags[other - 1] = lower;
            bench.check_all(&flags[..levels]);
        }
    }
}

#[test]
fn rights_of_four_levels() {
    every_right(4);
}

#[test]
fn bits_of_four_levels() {
    every_pair(4);
}

#[test]
fn bits_of_five_levels() {
    every_pair(5);
}
