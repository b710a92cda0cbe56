use alloc::vec::Vec;

use super::*;

/// One character time at 115200 8N1, rounded up.
const CHARACTER: u64 = 86_806;

/// A UART at 115200 8N1.
fn uart() -> Uart {
    let mut uart = Uart::new();
    for (offset, value) in [(3, 0x80), (0, 1), (1, 0), (3, 0x03)] {
        set(&mut uart, offset, value);
    }
    uart
}

fn set(uart: &mut Uart, offset: u16, value: u8) {
    assert_eq!(uart.write(offset, value, Nanos::ZERO), None);
}

fn get(uart: &mut Uart, offset: u16) -> u8 {
    uart.read(offset, Nanos::ZERO)
}

#[test]
fn the_divisor_hides_behind_dlab() {
    let mut uart = uart();
    set(&mut uart, 1, 0x05);
    set(&mut uart, 3, 0x83);
    assert_eq!((get(&mut uart, 0), get(&mut uart, 1), get(&mut uart, 3)), (1, 0, 0x83));
    set(&mut uart, 3, 0x03);
    assert_eq!(get(&mut uart, 1), 0x05);
    assert_eq!(uart.character_time(), CHARACTER - 1);
}

#[test]
fn bytes_leave_at_once() {
    let mut uart = uart();
    assert_eq!(get(&mut uart, 5), 0x60);
    assert_eq!(uart.write(0, b'A', Nanos::ZERO), Some(b'A'));
    uart.transmitted();
    assert_eq!(get(&mut uart, 5), 0x60);
    assert!(!uart.interrupt());
}

#[test]
fn the_transmitter_interrupt_falls_with_the_iir_and_rises_with_the_next_byte() {
    let mut uart = uart();
    set(&mut uart, 1, 0x02); // enabling it with an empty THR raises it
    assert!(uart.interrupt());
    assert_eq!(get(&mut uart, 2), 0x02);
    assert!(!uart.interrupt());
    assert_eq!(get(&mut uart, 2), 0x01);
    set(&mut uart, 1, 0x02); // already enabled: nothing new
    assert!(!uart.interrupt());
    assert_eq!(uart.write(0, b'A', Nanos::ZERO), Some(b'A'));
    assert!(!uart.interrupt());
    uart.transmitted();
    assert!(uart.interrupt());
    assert_eq!(uart.write(0, b'B', Nanos::ZERO), Some(b'B')); // a write takes it back, too
    assert!(!uart.interrupt());
}

#[test]
fn a_typed_byte_interrupts_until_it_is_read() {
    let mut uart = uart();
    set(&mut uart, 1, 0x01);
    uart.type_byte(b'x', Nanos::ZERO);
    assert!(uart.interrupt());
    assert_eq!((get(&mut uart, 2), get(&mut uart, 5)), (0x04, 0x61));
    assert_eq!(get(&mut uart, 0), b'x');
    assert!(!uart.interrupt());
    assert_eq!((get(&mut uart, 2), get(&mut uart, 5)), (0x01, 0x60));
    assert_eq!(get(&mut uart, 0), b'x'); // the register keeps it
}

#[test]
fn typed_bytes_come_one_by_one_and_none_is_lost() {
    let mut uart = uart();
    set(&mut uart, 1, 0x01);
    for byte in *b"abc" {
        uart.type_byte(byte, Nanos::ZERO);
    }
    let mut read = Vec::new();
    let mut now = Nanos::ZERO;
    loop {
        assert!(uart.interrupt());
        read.push(uart.read(0, now));
        assert!(!uart.interrupt(), "the line must fall between two bytes");
        let Some(deadline) = uart.next_deadline() else { break };
        assert!(deadline > now);
        now = deadline;
        uart.advance(now);
    }
    assert_eq!(read, b"abc");
    assert_eq!(now.raw(), 2 * (CHARACTER - 1));
}

#[test]
fn the_line_holds_a_bounded_number_of_bytes() {
    let mut uart = uart();
    for _ in 0..10_000 {
        uart.type_byte(b'x', Nanos::ZERO);
    }
    assert_eq!(uart.line.len(), LINE_DEPTH);
    assert_eq!(get(&mut uart, 5) & 2, 0); // no overrun
}

#[test]
fn a_fifo_interrupts_at_its_trigger_level_or_after_a_timeout() {
    let mut uart = uart();
    set(&mut uart, 2, 0x41); // trigger level 4
    set(&mut uart, 1, 0x01);
    for byte in *b"abcd" {
        uart.type_byte(byte, Nanos::ZERO);
    }
    assert_eq!(uart.next_deadline(), Some(Nanos::new(CHARACTER - 1)));
    for step in 1..=3_u64 {
        assert!(!uart.interrupt());
        uart.advance(Nanos::new(step * CHARACTER));
    }
    assert_eq!(get(&mut uart, 2), 0xC4);
    let late = Nanos::new(10 * CHARACTER);
    assert_eq!(uart.read(0, late), b'a');
    assert_eq!(get(&mut uart, 2), 0xC1);
    let deadline = uart.next_deadline().unwrap();
    assert_eq!(deadline, late.plus(4 * (CHARACTER - 1)));
    uart.advance(Nanos::new(deadline.raw() - 1));
    assert!(!uart.interrupt());
    uart.advance(deadline);
    assert_eq!(get(&mut uart, 2), 0xCC);
    assert_eq!(uart.read(0, deadline), b'b');
    assert_eq!(get(&mut uart, 2), 0xC1);
}

#[test]
fn the_fifo_control_register_clears_and_disables() {
    let mut uart = uart();
    set(&mut uart, 2, 0x01);
    uart.type_byte(b'a', Nanos::ZERO);
    set(&mut uart, 2, 0x03);
    assert_eq!(get(&mut uart, 5) & 1, 0);
    assert_eq!(get(&mut uart, 2), 0xC1);
    uart.type_byte(b'b', Nanos::new(CHARACTER));
    set(&mut uart, 2, 0xC2); // off: clears, and its other bits do not count
    assert_eq!((get(&mut uart, 5) & 1, get(&mut uart, 2)), (0, 0x01));
    assert_eq!(uart.trigger, 1);
}

#[test]
fn loopback_returns_bytes_and_modem_lines() {
    let mut uart = uart();
    set(&mut uart, 4, 0x1E);
    assert_eq!(uart.write(0, 0xAE, Nanos::ZERO), None);
    assert_eq!(get(&mut uart, 5) & 1, 1);
    assert_eq!(get(&mut uart, 0), 0xAE);
    assert_eq!(get(&mut uart, 6) & 0xF0, 0xD0); // RTS, OUT1, OUT2 come back as CTS, RI, DCD
    set(&mut uart, 4, 0x1A);
    assert_eq!(get(&mut uart, 6), 0x94); // the ring ended
    set(&mut uart, 1, 0x08);
    set(&mut uart, 4, 0x0F);
    assert!(uart.interrupt());
    assert_eq!(get(&mut uart, 2), 0x00);
    assert_eq!(get(&mut uart, 6) & 0xF0, 0xB0);
    assert!(!uart.interrupt());
}

#[test]
fn loopback_can_overrun_and_line_status_comes_first() {
    let mut uart = uart();
    set(&mut uart, 4, 0x10);
    set(&mut uart, 1, 0x0F);
    for byte in *b"ab" {
        set(&mut uart, 0, byte);
    }
    assert_eq!(get(&mut uart, 2), 0x06);
    assert_eq!(get(&mut uart, 5), 0x63);
    assert_eq!(get(&mut uart, 2), 0x04);
    assert_eq!(get(&mut uart, 0), b'b'); // without FIFOs the new character overwrites the old one
    assert_eq!(get(&mut uart, 2), 0x02);
    assert_eq!(get(&mut uart, 2), 0x00); // CTS, DSR and DCD fell when the loop closed
    assert_eq!(get(&mut uart, 6), 0x0B);
    assert_eq!(get(&mut uart, 2), 0x01);
}

#[test]
fn typed_bytes_wait_while_the_loop_is_closed() {
    let mut uart = uart();
    set(&mut uart, 4, 0x10);
    uart.type_byte(b'x', Nanos::ZERO);
    assert_eq!(get(&mut uart, 5) & 1, 0);
    assert_eq!(uart.next_deadline(), None);
    set(&mut uart, 4, 0x00);
    uart.advance(Nanos::ZERO);
    assert_eq!(get(&mut uart, 0), b'x');
}

#[test]
fn scratch_and_reserved_bits() {
    let mut uart = uart();
    set(&mut uart, 7, 0x5A);
    set(&mut uart, 1, 0xFF);
    set(&mut uart, 4, 0xFF);
    assert_eq!((get(&mut uart, 7), get(&mut uart, 1), get(&mut uart, 4)), (0x5A, 0x0F, 0x1F));
    set(&mut uart, 5, 0);
    set(&mut uart, 6, 0);
    assert_eq!(get(&mut uart, 5) & 0x60, 0x60);
}

#[test]
fn no_sequence_of_accesses_breaks_it() {
    let mut seed = 7_u32;
    let mut uart = Uart::new();
    let mut now = Nanos::ZERO;
    for _ in 0..200_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (value, offset) = ((seed >> 24) as u8, (seed >> 20) as u16 & 7);
        now = now.plus(u64::from(seed >> 8 & 0xFFFF));
        match (seed >> 16) & 3 {
            0 => drop(uart.write(offset, value, now)),
            1 => drop(uart.read(offset, now)),
            2 => uart.type_byte(value, now),
            _ => uart.advance(now),
        }
        assert!(uart.received.len() <= FIFO_DEPTH);
    }
}
