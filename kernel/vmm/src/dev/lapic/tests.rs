use super::message::ERROR_SEND_ILLEGAL;
use super::registers::VERSION;
use super::*;

const ICR_SELF: u32 = 1 << 18;
const EOI: u16 = 0xB0;
const TPR: u16 = 0x80;

fn set(apic: &mut LocalApic, offset: u16, value: u32) {
    assert_eq!(apic.write(offset, value, Nanos::ZERO), Written::Nothing);
}

fn get(apic: &mut LocalApic, offset: u16) -> u32 {
    apic.read(offset, Nanos::ZERO)
}

#[test]
fn it_begins_in_virtual_wire_mode() {
    let mut apic = LocalApic::new();
    assert!(apic.passes_pic() && !apic.is_ready());
    assert_eq!((get(&mut apic, 0x20), get(&mut apic, 0x30)), (0, VERSION));
    assert_eq!(apic.base(), 0xFEE0_0900);
    set(&mut apic, 0x350, 0x1_0700);
    assert!(!apic.passes_pic());
    assert!(LocalApic::absent().passes_pic());
    assert_eq!(LocalApic::absent().page(), None);
}

#[test]
fn interrupts_nest_by_priority_class() {
    let mut apic = LocalApic::new();
    for vector in [0x31, 0x35, 0x52] {
        set(&mut apic, 0x300, ICR_SELF | vector);
    }
    assert_eq!(get(&mut apic, 0x210), 0x0022_0000);
    assert_eq!(apic.acknowledge(), Some(0x52));
    assert_eq!(get(&mut apic, 0xA0), 0x50);
    assert_eq!(apic.acknowledge(), None);
    set(&mut apic, 0x300, ICR_SELF | 0x61);
    assert_eq!(apic.acknowledge(), Some(0x61));
    set(&mut apic, EOI, 0);
    assert_eq!(apic.acknowledge(), None);
    set(&mut apic, EOI, 0);
    assert_eq!(apic.acknowledge(), Some(0x35));
    assert_eq!(apic.acknowledge(), None); // the same class
    set(&mut apic, EOI, 0);
    assert_eq!(apic.acknowledge(), Some(0x31));
    set(&mut apic, EOI, 0);
    set(&mut apic, EOI, 0); // one too many does nothing
    assert_eq!(get(&mut apic, 0xA0), 0);
}

#[test]
fn the_task_priority_holds_interrupts_back() {
    let mut apic = LocalApic::new();
    set(&mut apic, TPR, 0x5F);
    assert_eq!(get(&mut apic, 0xA0), 0x5F);
    set(&mut apic, 0x300, ICR_SELF | 0x5F);
    assert!(!apic.is_ready());
    set(&mut apic, TPR, 0x4F);
    assert!(apic.is_ready());
}

#[test]
fn the_timer_interrupts_when_it_is_not_masked() {
    let mut apic = LocalApic::new();
    set(&mut apic, 0x3E0, 0b1011);
    set(&mut apic, 0x380, 1_000_000);
    assert_eq!(apic.next_deadline(), None); // masked
    assert_eq!(apic.read(0x390, Nanos::new(400_000)), 600_000);
    set(&mut apic, 0x320, LVT_PERIODIC | 0x40);
    assert_eq!(apic.next_deadline(), Some(Nanos::new(1_000_000)));
    apic.advance(Nanos::new(1_000_000));
    assert!(apic.is_ready());
    assert_eq!(apic.next_deadline(), None); // another would merge with this one
    assert_eq!(apic.acknowledge(), Some(0x40));
    assert_eq!(apic.next_deadline(), Some(Nanos::new(2_000_000)));
    set(&mut apic, 0x380, 0);
    assert_eq!(apic.next_deadline(), None);
}

#[test]
fn destinations() {
    let mut apic = LocalApic::new();
    let takes = |apic: &mut LocalApic, destination, logical| {
        apic.receive(Message { vector: 0x80, delivery: Delivery::Fixed, destination, logical, level: false });
        let taken = apic.acknowledge().is_some();
        let _ = apic.write(EOI, 0, Nanos::ZERO);
        taken
    };
    assert!(takes(&mut apic, 0, false) && takes(&mut apic, 0xFF, false) && !takes(&mut apic, 1, false));
    set(&mut apic, 0xD0, 0x1200_0000);
    assert!(takes(&mut apic, 0x02, true) && takes(&mut apic, 0x30, true) && !takes(&mut apic, 0x04, true));
    set(&mut apic, 0xE0, 0x0FFF_FFFF); // clusters
    assert!(takes(&mut apic, 0x12, true) && !takes(&mut apic, 0x11, true) && !takes(&mut apic, 0x22, true));
}

#[test]
fn the_end_of_a_level_goes_out() {
    let mut apic = LocalApic::new();
    apic.receive(Message { vector: 0x80, delivery: Delivery::Fixed, destination: 0, logical: false, level: true });
    assert_eq!(get(&mut apic, 0x1C0), 1);
    assert_eq!(apic.acknowledge(), Some(0x80));
    assert_eq!(apic.write(EOI, 0, Nanos::ZERO), Written::EndOfLevel(0x80));
}

#[test]
fn errors_are_latched_and_interrupt() {
    let mut apic = LocalApic::new();
    set(&mut apic, 0x370, 0xFE);
    set(&mut apic, 0x300, ICR_SELF | 5);
    assert_eq!(get(&mut apic, 0x280), 0);
    set(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), ERROR_SEND_ILLEGAL);
    assert_eq!(apic.acknowledge(), Some(0xFE));
    set(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0);
}

#[test]
fn nmis_come_by_icr_and_pass_all_priorities() {
    let mut apic = LocalApic::new();
    set(&mut apic, TPR, 0xFF);
    set(&mut apic, 0x300, ICR_SELF | 0x400);
    assert!(apic.nmi() && !apic.is_ready());
    apic.acknowledge_nmi();
    set(&mut apic, 0x300, 3 << 18 | 0x400); // all but self
    assert!(!apic.nmi());
}

#[test]
fn disabled_by_software_it_takes_nothing_and_masks_its_table() {
    let mut apic = LocalApic::new();
    set(&mut apic, 0xF0, 0xFF);
    assert_eq!(get(&mut apic, 0x350), 0x1_0700);
    set(&mut apic, 0x320, 0x40);
    assert_eq!(get(&mut apic, 0x320), 0x1_0040);
    set(&mut apic, 0x300, ICR_SELF | 0x40);
    assert!(!apic.is_ready() && !apic.passes_pic());
}

#[test]
fn its_base_register() {
    let mut apic = LocalApic::new();
    assert!(!apic.set_base(0xFEE0_0D00)); // x2APIC
    assert!(apic.set_base(0xFEC1_0900));
    assert_eq!(apic.page(), Some(0xFEC1_0000));
    assert!(apic.set_base(0xFEE0_0100));
    assert_eq!((apic.page(), apic.passes_pic()), (None, true));
    assert!(apic.set_base(0xFEE0_0900));
    assert_eq!((get(&mut apic, 0xF0), apic.passes_pic()), (0xFF, false)); // as after a reset
}

#[test]
fn lint0_as_a_fixed_interrupt() {
    let mut apic = LocalApic::new();
    set(&mut apic, 0x350, 0x31);
    apic.set_lint0(true);
    assert_eq!(apic.acknowledge(), Some(0x31));
    set(&mut apic, EOI, 0);
    assert!(!apic.is_ready());
}

#[test]
fn no_sequence_of_accesses_breaks_it() {
    let mut seed = 3_u32;
    let mut apic = LocalApic::new();
    let mut now = Nanos::ZERO;
    for _ in 0..200_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let offset = (seed >> 8) as u16 & 0xFF0;
        now = now.plus(u64::from(seed >> 16));
        match seed >> 30 {
            0 => drop(apic.read(offset, now)),
            1 => drop(apic.write(offset, seed.rotate_left(7), now)),
            2 => apic.advance(now),
            _ => drop(apic.acknowledge()),
        }
        assert!(apic.next_deadline().is_none_or(|deadline| deadline.raw() > 0));
    }
}
