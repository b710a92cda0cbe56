//! Exhaustive: every combination of the bits that decide about rights, at both levels, against every access and every control bit
//! that matters. The idea is that of the access test of kvm-unit-tests.

use super::cpu::Cpu;
use super::machine::{Mmu, SUPERVISOR, Setup, USER, new_mmu};
use super::memory::{Memory, gfn_of};
use super::reference::{self, State, Verdict};
use crate::{
    Access, AccessKind, ControlWrite, Controls, Fault, Gpa, Gva, Outcome, Policy, TranslateError, cr0, cr4, efer,
};

/// P, R/W, U/S, A, D, PS (PAT in a PTE), and of PAE NX.
const BITS: [u64; 7] = [1, 2, 4, 0x20, 0x40, 0x80, 1 << 63];
/// The table is frame 0, which as a large page is memory, too.
const PDE: u64 = 0x1000;
const PTE_INDEX: u64 = 3;
const TARGET: u64 = 4 << 12;

fn accesses() -> impl Iterator<Item = Access> {
    [AccessKind::Read, AccessKind::Write, AccessKind::Fetch]
        .into_iter()
        .flat_map(|kind| [SUPERVISOR, USER].map(|privilege| Access { kind, privilege }))
}

/// The `n`th combination of `BITS`.
fn bits(n: u32) -> u64 {
    BITS.iter().enumerate().filter(|(i, _)| n >> i & 1 != 0).map(|(_, bit)| bit).sum()
}

struct Bench {
    mmu: Mmu,
    twin: Memory,
    state: State,
    cpu: Cpu,
    pae: bool,
    gva: u32,
}

impl Bench {
    /// `pae`, and what CR0.WP, EFER.NXE (CR4.PSE in 2-level paging) and CR4.SMEP are.
    fn new(pae: bool, wp: bool, format: bool, smep: bool) -> Self {
        let setup = Setup {
            pool: 16,
            policy: Policy { reuse_detection: false, ..Policy::DEFAULT },
            caching: false,
            stepping: false,
        };
        let gva = (PTE_INDEX << 12) as u32 | if pae { 1 << 21 } else { 1 << 22 };
        let (mmu, twin) = (new_mmu(setup), Memory::new());
        let mut bench = Self { mmu, twin, state: State::default(), cpu: Cpu::new(false), pae, gva };
        bench.put(0x2000, 0x1001, 8);
        let on = |bit, set| if set { bit } else { 0 };
        let controls = Controls {
            cr0: cr0::PE | cr0::PG | on(cr0::WP, wp),
            cr3: if pae { 0x2000 } else { 0x1000 },
            cr4: on(cr4::PAE, pae) | on(cr4::PSE, format && !pae) | on(cr4::SMEP, smep),
            efer: on(efer::NXE, format && pae),
        };
        bench.state = bench.state.load(&bench.twin, controls, ControlWrite::Reset).expect("good tables");
        let plan = bench.mmu.load_controls(controls, ControlWrite::Reset).expect("good tables");
        bench.cpu.smep = smep;
        bench.cpu.execute(bench.mmu.root(), plan);
        bench
    }

    /// Both sides store an entry, by two writes if it has two halves.
    fn put(&mut self, at: u64, entry: u64, size: usize) {
        for (n, half) in entry.to_le_bytes()[..size].chunks(4).enumerate() {
            let gpa = Gpa::new(at + n as u64 * 4);
            self.twin.store(gpa, half);
            self.mmu.mem().store(gpa, half);
            let plan = self.mmu.on_write(gpa, 4);
            self.cpu.execute(self.mmu.root(), plan);
        }
    }

    fn put_both(&mut self, pde: u64, pte: u64) {
        let size = if self.pae { 8 } else { 4 };
        self.put(PDE + size as u64, pde, size);
        self.put(PTE_INDEX * size as u64, if pte & 1 == 0 { pte } else { pte | TARGET }, size);
    }

    fn check(&mut self, access: Access) {
        let gva = Gva::new(self.gva.into());
        let (expected, _) = reference::access(&self.twin, &self.state, self.gva, access, false);
        let probed = match self.mmu.probe(gva, access) {
            Ok(gpa) => Verdict::At(gpa.raw()),
            Err(TranslateError::Fault(fault)) => Verdict::Fault(fault.error.bits()),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(probed, expected, "{access:?}");
        if self.cpu.access(self.mmu.tables(), gva, access).is_none() {
            let (expected, _) = reference::access(&self.twin, &self.state, self.gva, access, true);
            let (outcome, plan) = self.mmu.on_fault(Fault { gva, access });
            self.cpu.execute(self.mmu.root(), plan);
            match (outcome, expected) {
                (Outcome::Inject(fault), Verdict::Fault(error)) => assert_eq!(fault.error.bits(), error, "{access:?}"),
                (Outcome::Resume, Verdict::At(_)) => {}
                other => panic!("{access:?}: {other:?}"),
            }
        }
        assert_eq!(self.mmu.mem().first_difference(&self.twin), None, "{access:?}: A and D");
        // Whatever the shadow allows now, the guest's tables allow without another mark.
        for other in accesses() {
            if let Some(pfn) = self.cpu.access(self.mmu.tables(), gva, other) {
                let target = gfn_of(pfn).expect("a frame of the guest") << 12;
                let verdict = reference::access(&self.twin, &self.state, self.gva, other, false);
                assert_eq!(verdict, (Verdict::At(target), true), "{access:?}, then {other:?}");
            }
        }
    }
}

fn every_combination(pae: bool) {
    let count = if pae { 128 } else { 64 };
    for controls in 0..8u32 {
        let (wp, format, smep) = (controls & 1 != 0, controls & 2 != 0, controls & 4 != 0);
        let mut bench = Bench::new(pae, wp, format, smep);
        for (pde, pte) in (0..count).flat_map(|pde| (0..count).map(move |pte| (bits(pde), bits(pte)))) {
            // An absent entry, whatever else is in it, needs to be tried with one entry at the other level only.
            if pde & 1 == 0 && pte != 7 || pte & 1 == 0 && pde != 7 {
                continue;
            }
            for access in accesses() {
                bench.put_both(pde, pte);
                bench.check(access);
            }
        }
        bench.mmu.audit().expect("sound");
    }
}

#[test]
fn of_two_levels() {
    every_combination(false);
}

#[test]
fn of_pae() {
    every_combination(true);
}
