//! Shadow code, as single stories: a kernel fetches from the window, reads and writes its own pages, and moves things about.

use gnomon_model::event::Event;
use gnomon_model::guest;
use gnomon_model::machine::{Machine, Setup};
use gnomon_model::reference::{Mode, PGE, PSE, SMEP, Verdict, What, Who};
use shadow_mmu::{Gva, Place, Policy, SyncPolicy};

const SUPERVISOR: Who = Who::Supervisor;
/// Page 5 is frame 20, which is no table.
const PAGE: u64 = 0x5000;
const FRAME: u64 = 20;
const PTE: u64 = 0x2014;

fn every_policy(story: impl Fn(Machine)) {
    every_policy_on(false, &story);
    every_policy_on(true, &story);
}

fn every_policy_on(keys: bool, story: impl Fn(Machine)) {
    for sync in [SyncPolicy::WriteProtect, SyncPolicy::UNSYNC, SyncPolicy::VirtualTlb] {
        for caching in [false, true] {
            let policy = Policy { sync, ..Policy::default() };
            let setup = Setup { pool: 48, policy, caching, code: true, keys, ..Setup::default() };
            let mut machine = Machine::new(setup);
            machine.set_cr4(PSE, true);
            guest::rebuild(&mut machine, Mode::Legacy, 0x3f);
            machine.write(PTE, SUPERVISOR, &0x1_4067u32.to_le_bytes());
            machine.invlpg(PAGE);
            story(machine);
        }
    }
}

fn fetch(machine: &mut Machine, gva: u64) -> Verdict {
    machine.access(gva, What::Fetch, SUPERVISOR, &[])
}

#[test]
fn fetches_see_the_shadow_and_reads_the_original() {
    every_policy(|mut machine| {
        assert_eq!(fetch(&mut machine, PAGE + 0x123), Verdict::At(FRAME << 12 | 0x123));
        assert!(machine.shows(FRAME));
        // The model would not know the host frame of shadow code as a frame of the guest.
        assert_eq!(machine.read(PAGE + 0x123, SUPERVISOR), Verdict::At(FRAME << 12 | 0x123));
        assert_eq!(machine.read(PAGE, Who::User), Verdict::At(FRAME << 12));
        let place = u64::from(machine.window_shift()) + PAGE;
        assert_eq!(machine.read(place, Who::User), Verdict::Fault(4), "nothing is there for user code");
        assert_eq!(machine.write(place, SUPERVISOR, b"x"), Verdict::Fault(2), "nor to be written");
    });
}

#[test]
fn a_write_is_noticed_and_the_code_comes_anew() {
    every_policy(|mut machine| {
        for who in [SUPERVISOR, Who::User] {
            fetch(&mut machine, PAGE);
            assert!(machine.shows(FRAME) && machine.mmu.write_kind(shadow_mmu::Gfn::new(FRAME)).watched);
            assert_eq!(machine.write(PAGE + 8, who, b"code"), Verdict::At(FRAME << 12 | 8));
            assert!(!machine.shows(FRAME));
            // Nobody watches it any more.
            machine.write(PAGE + 8, who, b"data");
        }
        fetch(&mut machine, PAGE);
        machine.device((FRAME << 12) - 2, b"dma!");
        assert!(!machine.shows(FRAME));
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
    });
}

#[test]
fn the_guest_takes_the_place_and_the_window_moves() {
    every_policy(|mut machine| {
        fetch(&mut machine, PAGE);
        let shift = machine.window_shift();
        machine.write(0x1000 + u64::from(shift >> 22) * 4, SUPERVISOR, &0x2067u32.to_le_bytes());
        // A virtual TLB looks at the guest's tables when the guest flushes.
        machine.set_cr3(machine.regs().cr3);
        machine.settle();
        assert_eq!(machine.read(u64::from(shift) + 0x3000, Who::User), Verdict::At(0x3000));
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
        assert_ne!(machine.window_shift(), shift);
        assert!(!machine.mmu.window_fits(shift, Gva::new(PAGE)));
        machine.event(Event::Window(2));
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
    });
}

#[test]
fn a_guest_without_an_empty_entry_lends_a_place_until_it_uses_it() {
    every_policy_on(true, |mut machine| {
        machine.device(0x1000, &0x2067u32.to_le_bytes().repeat(1024));
        machine.set_cr3(machine.regs().cr3);
        for who in [SUPERVISOR, Who::User] {
            assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
            let shift = machine.window_shift();
            assert_ne!(machine.mmu.window_place(shift, Gva::new(PAGE)), Place::Free);
            assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
            assert_eq!(machine.window_shift(), shift, "nobody needs the place");
            assert_eq!(machine.read(u64::from(shift) + 0x3000, who), Verdict::At(0x3000));
            assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
            assert_ne!(machine.window_shift(), shift);
        }
    });
}

#[test]
fn what_may_not_be_fetched_faults() {
    every_policy(|mut machine| {
        fetch(&mut machine, PAGE);
        machine.write(PTE, SUPERVISOR, &0u32.to_le_bytes());
        machine.invlpg(PAGE);
        assert_eq!(fetch(&mut machine, PAGE), Verdict::Fault(0));
        machine.write(PTE, SUPERVISOR, &0x1_5007u32.to_le_bytes());
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(0x1_5000));
        assert_eq!(machine.mmu.mem().ram.read(PTE, 4), Some(0x1_5027), "the fetch sets A");
    });
}

#[test]
fn patches_go_where_their_code_goes() {
    every_policy(|mut machine| {
        machine.event(Event::Patches(0x81));
        for page in [PAGE, 0x3000] {
            // The machine puts patches beside the code that it fetches, and jumps to them.
            fetch(&mut machine, page);
        }
        machine.write(PTE, SUPERVISOR, &0x1_5067u32.to_le_bytes());
        machine.invlpg(PAGE);
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(0x1_5000));
        machine.event(Event::Patches(2));
        fetch(&mut machine, PAGE);
    });
}

#[test]
fn a_fetch_that_marks_a_table_dirties_it() {
    every_policy(|mut machine| {
        machine.write(PTE, SUPERVISOR, &0x1_4047u32.to_le_bytes());
        machine.invlpg(PAGE);
        machine.event(Event::LogStart(0, 32));
        fetch(&mut machine, PAGE);
        assert_eq!(machine.entry(PTE, 4), 0x1_4067);
        assert_eq!(machine.collect(0, 32), [PTE >> 12]);
    });
}

#[test]
fn patches_are_lost_to_code_that_came_before() {
    every_policy(|mut machine| {
        // Page 5 from another address, too: 4 MiB on, where its patches would be.
        machine.write(0x1004, SUPERVISOR, &0x2067u32.to_le_bytes());
        machine.event(Event::Patches(2));
        fetch(&mut machine, PAGE + 0x40_0000);
        fetch(&mut machine, PAGE);
        assert!(!machine.mmu.take_patches_lost(), "the machine took notice, and has none now");
        machine.event(Event::Patches(2));
        assert!(machine.mmu.take_patches_lost(), "both are known to be code");
    });
}

#[test]
fn a_page_that_changes_takes_the_code_before_it() {
    every_policy(|mut machine| {
        // An instruction at the end of page 5 may reach into page 6.
        for frame in [0x1_5067u32, 0x1_6067, 0] {
            machine.write(PTE + 4, SUPERVISOR, &frame.to_le_bytes());
            machine.invlpg(PAGE + 0x1000);
            assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
        }
    });
}

/// A page of 4 MiB at 4 MiB, fetched from two pages at these places in it, then absent: one INVLPG takes the code of both.
fn a_large_page_goes(window: u8, [first, second]: [u64; 2]) {
    every_policy(|mut machine| {
        // Nothing is at 2 GiB, where one of the windows is.
        machine.write(0x1800, SUPERVISOR, &[0; 8]);
        machine.set_cr3(machine.regs().cr3);
        machine.event(Event::Window(window));
        let shift = machine.window_shift();
        for at in [first, second] {
            assert_eq!(fetch(&mut machine, 0x40_0000 + at), Verdict::At(at));
        }
        assert_eq!(machine.window_shift(), shift, "the place is free");
        machine.write(0x1004, SUPERVISOR, &0u32.to_le_bytes());
        machine.invlpg(0x40_0000 + first);
        for at in [second, first] {
            assert_eq!(fetch(&mut machine, 0x40_0000 + at), Verdict::Fault(0));
        }
    });
}

#[test]
fn the_code_of_a_large_page_goes_with_all_of_it() {
    a_large_page_goes(0, [0x5000, 0x6000]);
    a_large_page_goes(0, [0x5000, 0x20_5000]);
}

#[test]
fn halves_of_a_large_page_are_apart_in_a_window_that_begins_in_the_middle_of_one() {
    a_large_page_goes(5, [0x5000, 0x20_5000]);
    a_large_page_goes(5, [0x20_5000, 0x5000]);
}

#[test]
fn smep_takes_the_code_of_user_pages() {
    every_policy(|mut machine| {
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
        machine.set_cr4(SMEP, true);
        assert_eq!(fetch(&mut machine, PAGE), Verdict::Fault(0x11));
        machine.set_cr4(SMEP, false);
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
    });
}

#[test]
fn an_address_space_that_has_something_at_the_place_reads_that() {
    every_policy(|mut machine| {
        machine.set_cr4(PGE, true);
        machine.write(PTE, SUPERVISOR, &0x1_4167u32.to_le_bytes());
        machine.invlpg(PAGE);
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
        let place = u64::from(machine.window_shift()) + PAGE;
        machine.device(0x3000 + (place >> 22) * 4, &0x4067u32.to_le_bytes());
        machine.set_cr3(0x3000);
        assert_eq!(machine.read(place, SUPERVISOR), Verdict::At(0x5000), "not the code, though that is global");
        machine.set_cr3(0x1000);
        assert_eq!(fetch(&mut machine, PAGE), Verdict::At(FRAME << 12));
    });
}

/// PAE paging with address spaces that name these directories: at 0x7080 and, if there is a second one, behind.
fn with_directories(story: impl Fn(Machine), pdpts: &[[u64; 4]]) {
    for sync in [SyncPolicy::WriteProtect, SyncPolicy::UNSYNC, SyncPolicy::VirtualTlb] {
        for caching in [false, true] {
            let policy = Policy { sync, ..Policy::default() };
            let mut machine = Machine::new(Setup { pool: 48, policy, caching, code: true, ..Setup::default() });
            guest::rebuild(&mut machine, Mode::Pae, 0x3f);
            let entry = |&n: &u64| if n == 0 { 0 } else { n << 12 | 1u64 };
            let entries: Vec<_> = pdpts.as_flattened().iter().map(|n| entry(n).to_le_bytes()).collect();
            machine.device(0x7080, entries.as_flattened());
            // The first 2 MiB of directory 3.
            machine.device(0x3000, &[0; 8]);
            machine.event(Event::Window(0));
            story(machine);
        }
    }
}

#[test]
fn a_directory_of_two_places_shows_no_code_at_the_other() {
    let story = |mut machine: Machine| {
        machine.set_cr3(0x7080);
        // Directory 3 is the shadow's in both.
        machine.read(0x4020_1000, SUPERVISOR);
        machine.read(0x8020_1000, SUPERVISOR);
        assert_eq!(fetch(&mut machine, 0x2000), Verdict::At(0x2000));
        assert_eq!(fetch(&mut machine, 0x4000_2000), Verdict::Fault(0));
    };
    with_directories(story, &[[1, 3, 3, 6]]);
}

#[test]
fn a_directory_that_comes_to_another_place_brings_no_code() {
    let story = |mut machine: Machine| {
        machine.set_cr3(0x70a0);
        machine.read(0x8020_1000, SUPERVISOR);
        machine.set_cr3(0x7080);
        assert_eq!(fetch(&mut machine, 0x2000), Verdict::At(0x2000));
        assert_eq!(machine.window_shift(), 0x4000_0000);
        machine.set_cr3(0x70a0);
        assert_eq!(fetch(&mut machine, 0x4000_2000), Verdict::Fault(0));
        assert_eq!(fetch(&mut machine, 0x2000), Verdict::At(0x2000));
        machine.set_cr3(0x7080);
        assert_eq!(fetch(&mut machine, 0x2000), Verdict::At(0x2000));
    };
    with_directories(story, &[[1, 3, 0, 6], [1, 0, 3, 6]]);
}

/// Two address spaces share the directory that the window is in, but not the one of the code.
#[test]
fn a_shared_directory_brings_no_code_of_another_space() {
    let code = 0x7fc0_0000;
    for caching in [false, true] {
        let mut machine = Machine::new(Setup { pool: 48, caching, code: true, ..Setup::default() });
        guest::rebuild(&mut machine, Mode::Pae, 0x3f);
        let pdpts = [1u64, 1, 3, 6, 1, 3, 3, 6].map(|directory| (directory << 12 | 1).to_le_bytes());
        machine.device(0x7080, pdpts.as_flattened());
        machine.device(0x3000 + 0x1fe * 8, &[0; 8]);
        machine.event(Event::Window(5));
        machine.set_cr3(0x7080);
        assert_eq!(fetch(&mut machine, code), Verdict::At(0x2000));
        assert_eq!(machine.window_shift(), 0x7fe0_0000);
        machine.set_cr3(0x70a0);
        assert_eq!(machine.read(0xc000_3000, SUPERVISOR), Verdict::At(0x3000));
        assert_eq!(fetch(&mut machine, code), Verdict::Fault(0));
    }
}
