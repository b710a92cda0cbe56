use super::*;

/// 2024-02-29 23:59:58 UTC, a Thursday.
const EPOCH: u64 = 1_709_251_198;

fn cmos() -> Cmos {
    let mut cmos = Cmos::new();
    cmos.set_epoch(EPOCH);
    cmos
}

fn at(seconds: u64) -> Nanos {
    Nanos::new(seconds * NANOS_PER_SECOND)
}

fn get(cmos: &mut Cmos, index: u8, now: Nanos) -> u8 {
    cmos.write(0x70, index, now);
    cmos.read(0x71, now)
}

fn set(cmos: &mut Cmos, index: u8, value: u8, now: Nanos) {
    cmos.write(0x70, index | 0x80, now);
    cmos.write(0x71, value, now);
}

fn clock(cmos: &mut Cmos, now: Nanos) -> [u8; 8] {
    [CENTURY, YEAR, MONTH, DAY, DAY_OF_WEEK, HOURS, MINUTES, SECONDS].map(|index| get(cmos, index, now))
}

#[test]
fn time_goes_on_in_bcd() {
    let mut cmos = cmos();
    assert_eq!(clock(&mut cmos, at(0)), [0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x58]);
    assert_eq!(clock(&mut cmos, at(2)), [0x20, 0x24, 0x03, 0x01, 6, 0x00, 0x00, 0x00]);
    assert_eq!(get(&mut cmos, REGISTER_D, at(2)), 0x80);
}

#[test]
fn time_is_binary_or_in_halves_on_request() {
    let mut cmos = cmos();
    set(&mut cmos, REGISTER_B, B_BINARY | B_24_HOURS, at(0));
    assert_eq!(get(&mut cmos, MINUTES, at(0)), 59);
    assert_eq!(get(&mut cmos, HOURS, at(0)), 23);
    set(&mut cmos, REGISTER_B, 0, at(0));
    assert_eq!(get(&mut cmos, HOURS, at(0)), 0x91);
    assert_eq!(get(&mut cmos, HOURS, at(2)), 0x12);
    set(&mut cmos, HOURS, 0x92, at(2)); // 12 noon
    set(&mut cmos, REGISTER_B, B_24_HOURS, at(2));
    assert_eq!(get(&mut cmos, HOURS, at(2)), 0x12);
}

#[test]
fn update_in_progress_comes_and_goes() {
    let mut cmos = cmos();
    assert_eq!(get(&mut cmos, REGISTER_A, at(1)), A_DEFAULT);
    let shortly_before = Nanos::new(2 * NANOS_PER_SECOND - 100_000);
    assert_eq!(get(&mut cmos, REGISTER_A, shortly_before), A_DEFAULT | 0x80);
    assert_eq!(get(&mut cmos, SECONDS, shortly_before), 0x59);
    assert_eq!(get(&mut cmos, REGISTER_A, at(2)), A_DEFAULT);
    set(&mut cmos, REGISTER_A, 0xAF, at(2));
    assert_eq!(get(&mut cmos, REGISTER_A, at(2)), 0x2F); // UIP is read only
}

#[test]
fn the_guest_can_set_the_time() {
    let mut cmos = cmos();
    set(&mut cmos, REGISTER_B, B_SET | B_24_HOURS, at(5));
    let date = [(CENTURY, 0x19), (YEAR, 0x99), (MONTH, 0x12), (DAY, 0x31), (HOURS, 0x23), (MINUTES, 0x59)];
    for (index, value) in date.into_iter().chain([(SECONDS, 0x57)]) {
        set(&mut cmos, index, value, at(6));
    }
    assert_eq!(get(&mut cmos, SECONDS, at(9)), 0x57); // stands still
    set(&mut cmos, REGISTER_B, B_24_HOURS, at(10));
    assert_eq!(clock(&mut cmos, at(11)), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58]);
    assert_eq!(clock(&mut cmos, at(13)), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
}

#[test]
fn periodic_interrupts_need_register_c_to_be_read() {
    let mut cmos = cmos();
    assert_eq!(cmos.next_deadline(), None);
    set(&mut cmos, REGISTER_B, PERIODIC | B_24_HOURS, at(1));
    let first = cmos.next_deadline();
    // The first flag may be there already: PF is set without PIE, too.
    get(&mut cmos, REGISTER_C, at(1));
    let second = cmos.next_deadline();
    assert!(first.is_none() && second.is_some_and(|time| time > at(1) && time.since(at(1)) <= 976_562));
    cmos.advance(second.unwrap());
    assert!(cmos.interrupt());
    assert_eq!(cmos.next_deadline(), None);
    assert_eq!(get(&mut cmos, REGISTER_C, second.unwrap()), 0xC0);
    assert!(!cmos.interrupt());
    assert_eq!(get(&mut cmos, REGISTER_C, second.unwrap()), 0);
}

#[test]
fn the_update_interrupt_comes_with_the_second() {
    let mut cmos = cmos();
    set(&mut cmos, REGISTER_B, UPDATE | B_24_HOURS, at(1));
    get(&mut cmos, REGISTER_C, at(1));
    assert_eq!(cmos.next_deadline(), Some(at(2)));
    cmos.advance(at(2));
    assert!(cmos.interrupt());
    assert_eq!(get(&mut cmos, REGISTER_C, at(2)) & 0x90, 0x90);
}

#[test]
fn the_alarm_rings_at_its_time() {
    let mut cmos = cmos();
    set(&mut cmos, SECONDS_ALARM, 0x01, at(0));
    set(&mut cmos, MINUTES_ALARM, 0x00, at(0));
    set(&mut cmos, HOURS_ALARM, 0xFF, at(0));
    set(&mut cmos, REGISTER_B, ALARM | B_24_HOURS, at(0));
    for second in 1..=3 {
        assert!(!cmos.interrupt());
        assert_eq!(cmos.next_deadline(), Some(at(second)));
        cmos.advance(at(second));
    }
    assert!(cmos.interrupt());
    get(&mut cmos, REGISTER_C, at(3));
    cmos.advance(at(1_000_000)); // a long pause costs no long search
}

#[test]
fn memory_sizes_are_where_a_bios_stores_them() {
    let mut cmos = cmos();
    cmos.set_memory(64 << 20);
    let word = |cmos: &mut Cmos, index: u8| u16::from_le_bytes([index, index + 1].map(|index| get(cmos, index, at(0))));
    assert_eq!(word(&mut cmos, 0x15), 640);
    assert_eq!(word(&mut cmos, 0x17), 63 * 1024);
    assert_eq!(word(&mut cmos, 0x30), 63 * 1024);
    assert_eq!(word(&mut cmos, 0x34), 48 * 16);
    cmos.set_memory(1 << 30);
    assert_eq!(word(&mut cmos, 0x30), 65_535);
}

#[test]
fn the_rest_is_memory() {
    let mut cmos = cmos();
    set(&mut cmos, 0x0F, 0x0A, at(0));
    set(&mut cmos, 0x7F, 0x55, at(0));
    assert_eq!((get(&mut cmos, 0x0F, at(0)), get(&mut cmos, 0x7F, at(0))), (0x0A, 0x55));
    assert_eq!(cmos.read(0x70, at(0)), 0xFF);
}

#[test]
fn no_values_break_it() {
    let mut cmos = cmos();
    for value in 0..=255 {
        for index in 0..128 {
            set(&mut cmos, index, value, at(u64::from(value)));
            get(&mut cmos, index, Nanos::new(u64::MAX));
        }
    }
}
