//! What may be stale, and what may not: stories that random guests tell too rarely.

use gnomon_model::guest;
use gnomon_model::machine::{Machine, Setup};
use gnomon_model::reference::{Mode, PGE, PSE, Verdict, Who};
use shadow_mmu::{Counter, Gfn, Policy, SyncPolicy};

const SUPERVISOR: Who = Who::Supervisor;
const PAGE: u64 = 0x5000;
const PTE: u64 = 0x2014;

fn machine(sync: SyncPolicy) -> Machine {
    let policy = Policy { sync, ..Policy::default() };
    let mut machine = Machine::new(Setup { pool: 48, policy, caching: true, stepping: false, ..Setup::default() });
    machine.set_cr4(PSE, true);
    guest::rebuild(&mut machine, Mode::Legacy, 0x3f);
    machine.write(PTE, SUPERVISOR, &0x1_4067u32.to_le_bytes());
    machine.invlpg(PAGE);
    machine
}

fn every_policy(story: impl Fn(Machine)) {
    for sync in [SyncPolicy::WriteProtect, SyncPolicy::UNSYNC, SyncPolicy::VirtualTlb] {
        story(machine(sync));
    }
}

#[test]
fn a_right_lives_until_invlpg() {
    every_policy(|mut machine| {
        machine.write(PAGE, Who::User, b"x");
        machine.write(PTE, SUPERVISOR, &0u32.to_le_bytes());
        machine.invlpg(PAGE);
        assert_eq!(machine.read(PAGE, Who::User), Verdict::Fault(4));
    });
}

#[test]
fn a_stale_right_to_write_does_not_reach_a_frame_that_became_a_table() {
    every_policy(|mut machine| {
        // The TLB may write frame 20 through the page, though the entry has gone.
        machine.write(PAGE, Who::User, &0x5067u32.to_le_bytes());
        machine.write(PTE, SUPERVISOR, &0u32.to_le_bytes());
        // Frame 20 becomes the table of 8 MiB and up.
        machine.write(0x1008, SUPERVISOR, &0x1_4067u32.to_le_bytes());
        assert_eq!(machine.read(0x80_0000, SUPERVISOR), Verdict::At(0x5000));
        machine.write(PAGE, Who::User, &0x6067u32.to_le_bytes());
        machine.settle();
    });
}

#[test]
fn a_stale_right_to_write_does_not_escape_the_dirty_log() {
    every_policy(|mut machine| {
        machine.write(PAGE, Who::User, b"x");
        machine.write(PTE, SUPERVISOR, &0u32.to_le_bytes());
        // Of this frame alone: another one would bring a flush of its own.
        machine.collect(20, 21);
        machine.write(PAGE, Who::User, b"y");
        machine.collect(20, 21);
    });
}

#[test]
fn a_stale_translation_does_not_reach_a_frame_that_was_taken() {
    every_policy(|mut machine| {
        machine.write(PAGE, Who::User, b"x");
        machine.write(PTE, SUPERVISOR, &0u32.to_le_bytes());
        machine.page_out(20);
        assert_eq!(machine.read(PAGE, Who::User), Verdict::Fault(4));
    });
}

#[test]
fn a_stale_translation_is_a_use() {
    every_policy(|mut machine| {
        machine.write(PAGE, Who::User, b"x");
        machine.write(PTE, SUPERVISOR, &0u32.to_le_bytes());
        machine.look(20);
        machine.read(PAGE, Who::User);
        machine.look(20);
    });
}

/// As `every_policy`, with large leaves, and one of them there: 6 MiB are frames 0x200 and up.
fn every_policy_with_large_leaves(story: impl Fn(Machine)) {
    for sync in [SyncPolicy::WriteProtect, SyncPolicy::UNSYNC, SyncPolicy::VirtualTlb] {
        let policy = Policy { sync, huge: true, ..Policy::default() };
        let mut machine =
            Machine::new(Setup { pool: 48, policy, caching: true, speculating: true, ..Setup::default() });
        machine.set_cr4(PSE, true);
        guest::rebuild(&mut machine, Mode::Legacy, 0x3f);
        machine.write(0x60_1000, Who::User, &0x5067u32.to_le_bytes());
        machine.write(0x60_2000, SUPERVISOR, b"x");
        assert!(machine.mmu.counters().get(Counter::HugeFilled) != 0);
        story(machine);
    }
}

#[test]
fn a_large_right_to_write_does_not_reach_a_frame_that_became_a_table() {
    every_policy_with_large_leaves(|mut machine| {
        machine.write(0x1008, SUPERVISOR, &0x20_1067u32.to_le_bytes());
        assert_eq!(machine.read(0x80_0000, SUPERVISOR), Verdict::At(0x5000));
        machine.write(0x60_1000, SUPERVISOR, &0x6067u32.to_le_bytes());
        machine.settle();
        machine.invlpg(0x80_0000);
        assert_eq!(machine.read(0x80_0000, SUPERVISOR), Verdict::At(0x6000));
    });
}

#[test]
fn a_large_right_to_write_does_not_escape_the_dirty_log() {
    every_policy_with_large_leaves(|mut machine| {
        machine.collect(0x202, 0x203);
        machine.write(0x60_2000, SUPERVISOR, b"y");
        machine.write(0x60_3000, SUPERVISOR, b"y");
        assert_eq!(machine.collect(0x202, 0x203), [0x202]);
    });
}

#[test]
fn a_large_translation_does_not_reach_a_frame_that_was_taken() {
    every_policy_with_large_leaves(|mut machine| {
        machine.page_out(0x202);
        machine.read(0x60_1000, SUPERVISOR);
        assert_eq!(machine.read(0x60_2000, SUPERVISOR), Verdict::At(0x20_2000));
    });
}

#[test]
fn invlpg_of_one_half_drops_both_halves_of_a_large_page() {
    every_policy_with_large_leaves(|mut machine| {
        machine.write(0x1004, SUPERVISOR, &0xe5u32.to_le_bytes());
        machine.invlpg(0x40_5000);
        assert_eq!(machine.write(0x60_2000, SUPERVISOR, b"y"), Verdict::Fault(3));
    });
}

#[test]
fn a_part_of_a_large_page_goes_with_all_of_it() {
    every_policy(|mut machine| {
        machine.read(0x40_5000, SUPERVISOR);
        machine.read(0x40_6000, SUPERVISOR);
        machine.write(0x1004, SUPERVISOR, &0u32.to_le_bytes());
        machine.invlpg(0x40_6000);
        assert_eq!(machine.read(0x40_5000, SUPERVISOR), Verdict::Fault(0));
    });
}

/// Rule 7 of `sync`: a page that was out of sync, or that leads to one, shows itself at addresses at which no TLB ever knew it.
#[test]
fn a_new_link_leads_to_nothing_stale() {
    // Which entry of which table comes to name the table below it once more, and what addresses that makes.
    let links = [
        (Mode::Long4, (9, 2, 0x2067), 2 << 21),
        (Mode::Long4, (8, 2, 0x9067), 2 << 30),
        (Mode::Long4, (1, 1, 0x8067), 1 << 39),
        (Mode::Long5, (9, 2, 0x2067), 2 << 21),
        (Mode::Long5, (8, 2, 0x9067), 2 << 30),
        (Mode::Long5, (10, 2, 0x8067), 2 << 39),
    ];
    for (mode, (table, index, entry), base) in links {
        let policy = Policy { sync: SyncPolicy::UNSYNC, patience: 0, ..Policy::default() };
        let mut machine = Machine::new(Setup { pool: 48, policy, caching: true, ..Setup::default() });
        guest::rebuild(&mut machine, mode, 0x3ff);
        machine.set_cr3(0x1000);
        machine.device(0x2028, &0x1_4067u64.to_le_bytes());
        machine.device(table * 0x1000 + index * 8, &0u64.to_le_bytes());
        machine.invlpg(PAGE);
        machine.write(PAGE, SUPERVISOR, b"x");
        // The page becomes read-only. Its table goes out of sync, and the CPU may go on to write.
        machine.write(0x2028, SUPERVISOR, &0x1_4065u64.to_le_bytes());
        machine.write(PAGE, SUPERVISOR, b"y");
        // By another access in its neighbourhood the link comes into the shadow.
        machine.device(table * 0x1000 + index * 8, &u64::to_le_bytes(entry));
        assert_eq!(machine.read(base | 0x3000, SUPERVISOR), Verdict::At(0x3000));
        assert_eq!(machine.write(base | PAGE, SUPERVISOR, b"z"), Verdict::Fault(3), "{mode:?} {base:#x}");
    }
}

/// A 64-bit guest whose page 5 was written in both views. Then its entry changes, and the table goes out of sync.
fn out_of_sync(entry: u64) -> Machine {
    let policy = Policy { sync: SyncPolicy::UNSYNC, patience: 0, ..Policy::default() };
    let mut machine = Machine::new(Setup { pool: 48, policy, ..Setup::default() });
    guest::rebuild(&mut machine, Mode::Long4, 0x3ff);
    machine.set_cr3(0x1000);
    machine.device(0x2028, &0x1_4067u64.to_le_bytes());
    for who in [SUPERVISOR, Who::User] {
        machine.write(PAGE, who, b"x");
    }
    machine.write(0x2028, SUPERVISOR, &entry.to_le_bytes());
    assert!(machine.mmu.write_kind(Gfn::new(2)).is_plain(), "out of sync");
    machine
}

/// Rule 5 of `sync`.
#[test]
fn invlpg_ends_it_in_every_view() {
    let mut machine = out_of_sync(0x1_4063);
    machine.invlpg(PAGE);
    assert_eq!(machine.read(PAGE, Who::User), Verdict::Fault(5));
    assert_eq!(machine.write(PAGE, SUPERVISOR, b"x"), Verdict::At(20 << 12));
    let mut machine = out_of_sync(0);
    machine.invlpg(PAGE);
    assert_eq!(machine.read(PAGE, Who::User), Verdict::Fault(4));
    assert_eq!(machine.read(PAGE, SUPERVISOR), Verdict::Fault(0));
}

/// Rule 2 of `sync`, where no flush comes between.
#[test]
fn a_leaf_table_that_becomes_a_directory_is_in_step() {
    let mut machine = out_of_sync(0x1_4065);
    // The PDPT in frame 8 names it as a directory. Its entry 3 names frame 3, whose entry 0 names frame 8.
    machine.device(0x8010, &0x2067u64.to_le_bytes());
    assert_eq!(machine.read(2 << 30 | 3 << 21, SUPERVISOR), Verdict::At(0x8000));
    assert!(machine.mmu.write_kind(Gfn::new(2)).page_table, "its writes are caught again");
}

/// Its parts stay in a virtual TLB, which must know after the load that they were parts.
#[test]
fn a_part_of_a_global_large_page_goes_with_all_of_it_after_a_load_of_cr3() {
    every_policy(|mut machine| {
        machine.set_cr4(PGE, true);
        machine.write(0x1004, SUPERVISOR, &0x1e7u32.to_le_bytes());
        machine.invlpg(0x40_0000);
        // One in each of the two shadow tables of 4 MiB.
        machine.read(0x40_5000, SUPERVISOR);
        machine.read(0x60_6000, SUPERVISOR);
        machine.set_cr3(0x1000);
        machine.write(0x1004, SUPERVISOR, &0u32.to_le_bytes());
        machine.invlpg(0x60_6000);
        assert_eq!(machine.read(0x40_5000, SUPERVISOR), Verdict::Fault(0));
    });
}

/// Without CR4.PGE the bit means nothing.
#[test]
fn a_page_with_g_goes_with_the_others_while_pge_is_clear() {
    every_policy(|mut machine| {
        machine.write(PTE, SUPERVISOR, &0x1_4167u32.to_le_bytes());
        machine.invlpg(PAGE);
        machine.read(PAGE, SUPERVISOR);
        machine.write(PTE, SUPERVISOR, &0u32.to_le_bytes());
        machine.set_cr3(0x1000);
        assert_eq!(machine.read(PAGE, SUPERVISOR), Verdict::Fault(0));
    });
}

#[test]
fn a_large_page_goes_with_the_table_above_its_own() {
    for sync in [SyncPolicy::WriteProtect, SyncPolicy::UNSYNC, SyncPolicy::VirtualTlb] {
        let policy = Policy { sync, ..Policy::default() };
        let mut machine = Machine::new(Setup { pool: 48, policy, caching: true, ..Setup::default() });
        guest::rebuild(&mut machine, Mode::Long4, 0x3f);
        // Two parts of the page of 2 MiB at 4 MiB.
        for part in [0x40_1000, 0x40_2000] {
            assert_eq!(machine.read(part, Who::User), Verdict::At(part & 0xffff));
        }
        // The directory, frame 9, is named by frame 8. INVLPG drops the large page, all of it.
        machine.device(0x8000, &[0; 8]);
        machine.invlpg(0x40_1000);
        assert_eq!(machine.read(0x40_2000, Who::User), Verdict::Fault(4));
    }
}
