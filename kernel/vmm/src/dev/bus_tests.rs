use alloc::vec::Vec;

use super::*;
use crate::dev::disk;

const MS: u64 = 1_000_000;

fn out(bus: &mut Bus, port: u16, value: u8, now: Nanos) {
    assert_eq!(bus.write(port, 1, u32::from(value), now), BusEffect::None);
}

fn inb(bus: &mut Bus, port: u16, now: Nanos) -> u8 {
    bus.read(port, 1, now) as u8
}

/// A PC whose 8259s give vectors from 0x20 with everything masked, and whose timer ticks every 10 ms.
fn bus() -> Bus {
    let mut bus = Bus::new("demo").with_console(ConsoleKind::Serial).with_memory(16 << 20).with_epoch(1_700_000_000);
    let icw = [(0x20, 0x11), (0xA0, 0x11), (0x21, 0x20), (0xA1, 0x28), (0x21, 4), (0xA1, 2), (0x21, 1), (0xA1, 1)];
    let timer = [(0x43, 0x34), (0x40, 0x9B), (0x40, 0x2E)];
    let mask = [(0x21, 0xFF), (0xA1, 0xFF)];
    for (port, value) in icw.into_iter().chain(mask).chain(timer) {
        out(&mut bus, port, value, Nanos::ZERO);
    }
    bus
}

/// Delivers and ends an interrupt; its vector.
fn service(bus: &mut Bus, now: Nanos) -> u8 {
    assert!(bus.interrupt_pending());
    let vector = bus.acknowledge();
    out(bus, 0x20, 0x20, now);
    vector
}

#[test]
fn the_timer_interrupts_at_its_deadlines() {
    let mut bus = bus();
    assert_eq!(bus.next_deadline(), None); // masked
    out(&mut bus, 0x21, 0xFE, Nanos::ZERO);
    let mut now = Nanos::ZERO;
    let mut ticks = 0;
    while let Some(deadline) = bus.next_deadline().filter(|deadline| deadline.raw() < 1055 * MS) {
        assert!(deadline > now && !bus.interrupt_pending());
        now = deadline;
        bus.advance(now);
        assert_eq!(service(&mut bus, now), 0x20);
        ticks += 1;
    }
    assert_eq!(ticks, 105);
}

#[test]
fn a_tick_while_masked_waits_for_the_mask() {
    let mut bus = bus();
    bus.advance(Nanos::new(200 * MS));
    assert!(!bus.interrupt_pending());
    out(&mut bus, 0x21, 0xFE, Nanos::new(201 * MS));
    assert!(bus.interrupt_pending());
    assert_eq!(bus.next_deadline(), None); // further ticks change nothing until this one is taken
    assert_eq!(service(&mut bus, Nanos::new(201 * MS)), 0x20);
    assert!(bus.next_deadline().is_some());
    assert!(!bus.interrupt_pending());
}

#[test]
fn a_device_access_sees_the_time_it_is_made_at() {
    let mut bus = bus();
    assert_eq!(inb(&mut bus, 0x20, Nanos::new(9 * MS)), 0);
    assert_eq!(inb(&mut bus, 0x20, Nanos::new(11 * MS)), 1); // IRR, without a call of advance
    assert_eq!(inb(&mut bus, 0x20, Nanos::new(3 * MS)), 1); // time does not go back
}

#[test]
fn com1_and_port_e9_print() {
    let mut bus = bus();
    let now = Nanos::ZERO;
    assert!(!bus.has_console_output());
    out(&mut bus, 0x3F8, b'a', now);
    out(&mut bus, 0xE9, b'b', now);
    assert_eq!(bus.write(0xE8, 2, u32::from_le_bytes([0, b'c', b'x', 0]), now), BusEffect::None);
    assert!(bus.has_console_output());
    assert_eq!(bus.console_output().collect::<Vec<_>>(), b"abc");
    assert_eq!(inb(&mut bus, 0xE9, now), 0xE9);
    assert_eq!(bus.console_lost(), 0);
}

#[test]
fn each_transmitted_byte_is_a_new_edge() {
    let mut bus = bus();
    let now = Nanos::ZERO;
    out(&mut bus, 0x21, 0xEF, now);
    out(&mut bus, 0x3F9, 0x02, now);
    for byte in *b"no IIR read" {
        assert_eq!(service(&mut bus, now), 0x24);
        assert!(!bus.interrupt_pending());
        out(&mut bus, 0x3F8, byte, now);
    }
    assert_eq!(bus.console_output().count(), 11);
}

#[test]
fn typed_bytes_interrupt_one_by_one() {
    let mut bus = bus();
    out(&mut bus, 0x21, 0xEF, Nanos::ZERO);
    out(&mut bus, 0x3F9, 0x01, Nanos::ZERO);
    for byte in *b"hi!" {
        bus.console_input(byte);
    }
    let mut read = Vec::new();
    let mut now = Nanos::ZERO;
    loop {
        assert_eq!(service(&mut bus, now), 0x24);
        read.push(inb(&mut bus, 0x3F8, now)); // one byte each time: the handler does not loop
        let Some(deadline) = bus.next_deadline() else { break };
        now = deadline;
        bus.advance(now);
    }
    assert_eq!(read, b"hi!");
}

#[test]
fn a_polling_guest_gets_typed_bytes() {
    let mut bus = bus();
    for byte in *b"ok" {
        bus.console_input(byte);
    }
    let mut read = Vec::new();
    for step in 0..10 {
        let now = Nanos::new(step * MS);
        if inb(&mut bus, 0x3FD, now) & 1 != 0 {
            read.push(inb(&mut bus, 0x3F8, now));
        }
    }
    assert_eq!(read, b"ok");
}

#[test]
fn the_clock_and_the_keyboard_interrupt() {
    let mut bus = bus();
    let now = Nanos::ZERO;
    for (port, value) in [(0x21, 0xF9), (0xA1, 0xFE), (0x70, 0x0B), (0x71, 0x42)] {
        out(&mut bus, port, value, now);
    }
    let deadline = bus.next_deadline().unwrap();
    bus.advance(deadline);
    assert_eq!(service(&mut bus, deadline), 0x28);
    out(&mut bus, 0xA0, 0x20, deadline);
    out(&mut bus, 0x60, 0xFF, deadline);
    assert_eq!(service(&mut bus, deadline), 0x21);
    assert_eq!(inb(&mut bus, 0x60, deadline), 0xFA);
    assert_eq!(service(&mut bus, deadline), 0x21);
    assert_eq!(inb(&mut bus, 0x60, deadline), 0xAA);
    assert!(!bus.interrupt_pending());
}

#[test]
fn guests_end_and_reset() {
    let mut bus = bus();
    let now = Nanos::ZERO;
    assert_eq!(bus.write(0xF4, 1, 0xFFFF_FF05, now), BusEffect::Exit(5));
    assert_eq!(bus.write(0xF4, 2, 0xFFFF_0105, now), BusEffect::Exit(0x105));
    assert_eq!(bus.write(0xF4, 4, 0x8000_0000, now), BusEffect::Exit(0x8000_0000));
    for byte in *b"Shutdow" {
        out(&mut bus, 0x8900, byte, now);
    }
    assert_eq!(bus.write(0x8900, 1, u32::from(b'n'), now), BusEffect::Exit(0));
    assert_eq!(bus.write(0x64, 1, 0xFE, now), BusEffect::Reset);
    assert_eq!(bus.write(0x92, 1, 0x01, now), BusEffect::Reset);
    assert_eq!(bus.write(0xCF9, 1, 0x06, now), BusEffect::Reset);
    assert_eq!(bus.write(0xCF8, 4, 0x8000_0600, now), BusEffect::None, "the address of a PCI function");
}

#[test]
fn where_nothing_answers_all_bits_are_one() {
    let mut bus = bus();
    let now = Nanos::ZERO;
    assert_eq!(bus.read(0x5FC, 4, now), 0xFFFF_FFFF);
    assert_eq!(bus.read(0x2F8, 1, now), 0xFF);
    assert_eq!(bus.read(0xFFFF, 4, now), 0xFFFF_FFFF);
    assert_eq!(bus.write(0xFFFF, 4, 0, now), BusEffect::None);
    for port in 0x1000..0x2000 {
        out(&mut bus, port, 0, now);
    }
    assert!(!bus.unclaimed.is_new(0x3000)); // the log has its share
}

#[test]
fn wide_accesses_reach_the_ports_that_follow() {
    let mut bus = bus();
    let now = Nanos::ZERO;
    assert_eq!(bus.write(0x3D4, 2, 0x120E, now), BusEffect::None); // index and data in one
    assert_eq!(bus.read(0x3D4, 2, now), 0x120E);
}

#[test]
fn no_sequence_of_accesses_breaks_it() {
    let ports = [0x20, 0x21, 0xA0, 0xA1, 0x40, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x3F8, 0x3F9, 0x1F0, 0x1F7];
    let mut seed = 3_u32;
    let mut bus = Bus::new("demo").with_disk(0, disk::tests::disk(8, 8));
    let mut now = Nanos::ZERO;
    for step in 0..300_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        now = now.plus(u64::from(seed >> 10 & 0x3_FFFF));
        let port = ports.iter().copied().nth((seed >> 28) as usize).unwrap();
        let bytes = [1, 1, 2, 4][(seed >> 26) as usize & 3];
        match (seed >> 23) & 7 {
            0..=2 => drop(bus.read(port, bytes, now)),
            3..=5 => drop(bus.write(port, bytes, seed.rotate_right(13), now)),
            6 => bus.console_input(seed as u8),
            _ if bus.interrupt_pending() => drop(bus.acknowledge()),
            _ => {
                bus.advance(now);
                assert!(bus.next_deadline().is_none_or(|deadline| deadline > now), "{bus:?}");
            }
        }
        assert!(bus.console_output().count() <= 4);
        if step % 32 == 0 {
            assert_nothing_was_missed(&mut bus);
        }
    }
}

/// What the bus keeps is what it would find by asking all its devices.
fn assert_nothing_was_missed(bus: &mut Bus) {
    let kept = (bus.interrupt_pending(), bus.due, bus.wake);
    bus.drive_lines();
    assert_eq!((bus.interrupt_pending(), bus.due, bus.wake), kept, "{bus:?}");
}

#[test]
fn a_wide_access_to_nobody_is_one_access() {
    let mut bus = bus();
    assert_eq!(bus.read(0x5FC, 4, Nanos::ZERO), 0xFFFF_FFFF);
    assert_eq!(bus.write(0x5F0, 2, 0x1234, Nanos::ZERO), BusEffect::None);
    assert!([0x5FC, 0x5F0].into_iter().all(|port| !bus.unclaimed.is_new(port)));
    assert!([0x5FD, 0x5FE, 0x5FF, 0x5F1].into_iter().all(|port| bus.unclaimed.is_new(port)));
    // Where a device is among the ports, each of them is an access.
    assert_eq!(bus.read(0x3D8, 4, Nanos::ZERO), 0xFF00_FFFF);
    assert!(!bus.unclaimed.is_new(0x3D9) && bus.unclaimed.is_new(0x3DA));
}

#[test]
fn ports_for_delays_are_not_named() {
    let mut bus = bus();
    for port in [0x80, 0xED] {
        out(&mut bus, port, 0x55, Nanos::ZERO);
        assert_eq!(inb(&mut bus, port, Nanos::ZERO), 0xFF);
        assert!(bus.unclaimed.is_new(port));
    }
    assert_eq!(inb(&mut bus, 0x8900, Nanos::ZERO), 0xFF);
    assert!(bus.unclaimed.is_new(0x8900));
}

#[test]
fn a_deadline_follows_the_mask_and_the_acknowledge() {
    let mut bus = bus();
    out(&mut bus, 0x21, 0xFE, Nanos::ZERO);
    let first = bus.next_deadline().unwrap();
    bus.advance(Nanos::new(first.raw() - 1));
    assert_eq!(bus.next_deadline(), Some(first));
    bus.advance(first);
    assert_eq!(bus.next_deadline(), None); // the interrupt waits
    assert_eq!(bus.acknowledge(), 0x20);
    let second = bus.next_deadline().unwrap();
    assert!(second > first);
    out(&mut bus, 0x21, 0xFF, first);
    assert_eq!(bus.next_deadline(), None);
    out(&mut bus, 0x21, 0xFE, first);
    assert_eq!(bus.next_deadline(), Some(second));
    // A poll of the 8259 acknowledges, too.
    bus.advance(second);
    assert_eq!(bus.next_deadline(), None);
    out(&mut bus, 0x20, 0x20, second);
    out(&mut bus, 0x20, 0x0C, second);
    assert_eq!(inb(&mut bus, 0x20, second), 0x80);
    assert!(bus.next_deadline().unwrap() > second);
}

#[test]
fn a_transmitter_interrupt_enabled_late_comes_at_once() {
    let mut bus = bus();
    let now = Nanos::ZERO;
    out(&mut bus, 0x21, 0xEF, now);
    out(&mut bus, 0x3F8, b'x', now);
    assert!(!bus.interrupt_pending());
    out(&mut bus, 0x3F9, 0x02, now);
    assert_eq!(service(&mut bus, now), 0x24);
}

#[test]
fn the_firmware_device_and_pci_take_wide_accesses() {
    let mut bus = bus();
    let now = Nanos::ZERO;
    assert_eq!(bus.write(0x510, 2, 0x05, now), BusEffect::None);
    assert_eq!((inb(&mut bus, 0x511, now), inb(&mut bus, 0x511, now)), (1, 0));
    // How Linux looks for mechanism 1.
    out(&mut bus, 0xCFB, 1, now);
    let before = bus.read(0xCF8, 4, now);
    assert_eq!(bus.write(0xCF8, 4, 0x8000_0000, now), BusEffect::None);
    assert_eq!(bus.read(0xCF8, 4, now), 0x8000_0000);
    assert_eq!(bus.read(0xCFC, 2, now), 0x8086);
    assert_eq!(bus.read(0xCFE, 2, now), 0x1237);
    assert_eq!(bus.write(0xCF8, 4, before, now), BusEffect::None);
}

#[test]
fn kernels_power_off_by_acpi_and_by_fixed_ports() {
    for port in [0x604, 0xB004] {
        assert_eq!(bus().write(port, 2, 0x2000, Nanos::ZERO), BusEffect::PowerOff);
    }
}

#[test]
fn typed_bytes_wait_until_it_is_known_where_the_guest_reads() {
    let now = Nanos::ZERO;
    let mut serial = Bus::new("demo");
    assert!(!serial.accepts_input());
    out(&mut serial, 0x3F8, b'>', now);
    assert!(serial.accepts_input());
    serial.console_input(b'x');
    assert_eq!(inb(&mut serial, 0x3F8, now), b'x');
    let mut screen = Bus::new("demo");
    (0..16).for_each(|_| assert_eq!(inb(&mut screen, 0x64, now) & 1, 0));
    assert!(screen.accepts_input());
    screen.console_input(b'a');
    assert_eq!((inb(&mut screen, 0x64, now) & 1, inb(&mut screen, 0x60, now)), (1, 0x1E));
}

#[test]
fn what_the_guest_has_not_read_can_be_taken_back() {
    let now = Nanos::ZERO;
    let mut serial = Bus::new("demo");
    out(&mut serial, 0x3F8, b'>', now);
    b"one two".iter().for_each(|&byte| serial.console_input(byte));
    assert_eq!(inb(&mut serial, 0x3F8, now), b'o');
    assert_eq!(serial.take_unread_input().collect::<Vec<u8>>(), b"ne two");
    assert_eq!(serial.take_unread_input().count(), 0);
    let mut screen = Bus::new("demo").with_console(ConsoleKind::Screen);
    b"abc".iter().for_each(|&byte| screen.console_input(byte));
    // The key of `a` is down, so it is the guest's.
    assert_eq!(inb(&mut screen, 0x60, now), 0x1E);
    assert_eq!(screen.take_unread_input().collect::<Vec<u8>>(), b"bc");
}

/// A level of the test device goes through the I/O APIC to the local one, also at inputs that no IRQ has.
#[test]
fn the_test_device_drives_lines_and_keeps_words() {
    let (mut bus, now) = (bus(), Nanos::ZERO);
    let store = |bus: &mut Bus, address: u64, value: u32| bus.write_memory(address, &value.to_le_bytes(), now);
    store(&mut bus, 0xFEC0_0000, 0x10 + 2 * 20);
    store(&mut bus, 0xFEC0_0010, 0x8041); // level, vector 0x41
    assert!(!bus.interrupt_pending());
    out(&mut bus, 0x2014, 1, now);
    assert!(bus.interrupt_pending());
    assert_eq!(bus.acknowledge(), 0x41);
    store(&mut bus, 0xFEE0_00B0, 0);
    assert!(bus.interrupt_pending(), "it is still asserted");
    assert_eq!(bus.acknowledge(), 0x41);
    out(&mut bus, 0x2014, 0, now);
    store(&mut bus, 0xFEE0_00B0, 0);
    assert!(!bus.interrupt_pending());
    assert_eq!(bus.write(0xE0, 4, 0x1234_5678, now), BusEffect::None);
    assert_eq!((bus.read(0xE0, 4, now), bus.read(0xE8, 1, now)), (0x1234_5678, 0x78));
    store(&mut bus, 0xFF00_1234, 77);
    let mut bytes = [0; 2];
    bus.read_memory(0xFF00_1234, &mut bytes, now);
    assert_eq!(bytes, [77, 0]);
    assert_nothing_was_missed(&mut bus);
}
