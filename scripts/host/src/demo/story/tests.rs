use super::super::{episode, pick};
use super::*;
use crate::symbols::Symbols;

fn record(kind: Kind, tsc: u64) -> Record {
    Record { tsc, vm: 1, ..Record::new(kind) }
}

fn resume(tsc: u64, reason: Reason, ring: u8, rip: u64) -> Record {
    Record { code: reason as u8, flags: ring, a: rip, ..record(Kind::Resume, tsc) }
}

fn exit(tsc: u64, vector: u8, ring: u8, rip: u64) -> Record {
    Record { code: vector, flags: ring, a: rip, ..record(Kind::Exit, tsc) }
}

/// A small run: a call, two port accesses, a page-table write, the return, the touch.
fn records() -> Vec<Record> {
    let name = u64::from_le_bytes(*b"demo\0\0\0\0");
    vec![
        Record { c: name, ..record(Kind::VmStart, 0) },
        resume(1000, Reason::Iret, 3, 0x8000),
        exit(1200, 0x80, 3, 0x8012),
        Record { code: 3, ..record(Kind::Ring, 1210) },
        Record { code: 0x80, flags: 3, a: 0x10_0100, ..record(Kind::Inject, 1220) },
        resume(1300, Reason::SoftInterrupt, 0, 0x10_0100),
        exit(1310, 13, 0, 0x10_0110),
        resume(1400, Reason::Io, 0, 0x10_0111),
        exit(1410, 13, 0, 0x10_0110),
        resume(1500, Reason::Io, 0, 0x10_0111),
        Record { arg: 3, b: 0x10_3020, ..exit(1510, 14, 0, 0x10_0200) },
        Record { code: 1, flags: 1, a: 0x10_3020, c: 0x20_5007, ..record(Kind::PtWrite, 1520) },
        resume(3510, Reason::PtWrite, 0, 0x10_0202),
        exit(3520, 11, 0, 0x10_0300),
        Record { flags: 3, ..record(Kind::Ring, 3530) },
        resume(3600, Reason::Iret, 3, 0x8014),
        Record { arg: 6, b: 0x9000, ..exit(3610, 14, 3, 0x8020) },
        Record { code: 1, flags: 1, a: 0x9000, b: 0x10_3020, c: 0x20_5067, ..record(Kind::Walk, 3620) },
        Record { code: 1, flags: 1, a: 0x9000, b: 0x7f_8048, c: 0x3f8_1007, ..record(Kind::Fill, 3630) },
        resume(3700, Reason::HiddenFault, 3, 0x8020),
    ]
}

fn told(records: &[Record]) -> String {
    let mut names = Names::default();
    names.add("demo", Symbols::from_list([(0x8010, 8, "sbrk".to_owned()), (0x10_0200, 8, "map_page".to_owned())]));
    records.iter().for_each(|record| names.learn(record));
    let episodes = episode::cut(records, 1);
    let plot = pick::find(&episodes).expect("a plot");
    tell(&episodes, plot, &names, &Options { style: Style::new(false), records: false }).unwrap()
}

#[test]
fn the_story_is_told_in_order() {
    let text = told(&records());
    let parts = [
        "1 The process runs, up to sbrk",
        "200 instructions in ring 3",
        "2 The process asks for a service: INT 0x80 in sbrk",
        "switches the guest from ring 3 to ring 1",
        "... 2 exits, 180 instructions in Gnomon (2 io)",
        "3 The kernel writes a page-table entry in map_page",
        "guest  L1 at GPA 0x00103020: 0x00000000 becomes 0x00205007  writable, user",
        "shadow L1 at HPA 0x007f8048: stays empty",
        "1 exit, 2,000 instructions",
        "4 The kernel returns by IRET",
        "5 The process touches 0x00009000",
        "no shadow entry for a write by user code to 0x00009000",
        "guest  L1 at GPA 0x00103020: 0x00205067  page at GPA 0x00205000, writable, user, accessed, dirty",
        "shadow L1 at HPA 0x007f8048: 0x0003f81007  page at HPA 0x03f81000",
        "sets the guest's accessed and dirty bits",
        "6 The process goes on",
        "6 exits, 2,450 instructions in Gnomon",
        "(2 io, 1 hidden-fault, 1 pt-write, 1 iret, 1 soft-interrupt)",
    ];
    let mut rest = text.as_str();
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("`{part}` is missing or out of order in\n{text}"));
        rest = &rest[at..];
    }
    assert!(!text.contains('\x1b'), "no colour unless asked for");
}

#[test]
fn without_the_touch_there_is_no_story() {
    let records = records();
    assert_eq!(pick::find(&episode::cut(&records[..records.len() - 4], 1)), None);
}

#[test]
fn numbers_are_grouped() {
    assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
}
