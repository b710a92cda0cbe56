use super::*;

/// A counter with GATE high after `control` and `count` (low byte, high byte) at tick 0.
fn channel(control: u8, count: u16) -> Channel {
    let mut channel = Channel::started(0x36, true);
    channel.write_control(control, 0);
    set(&mut channel, count, 0);
    channel
}

fn set(channel: &mut Channel, count: u16, now: Tick) {
    for byte in count.to_le_bytes() {
        channel.write(byte, now);
    }
}

fn count(channel: &mut Channel, now: Tick) -> u16 {
    u16::from_le_bytes([channel.read(now), channel.read(now)])
}

fn status(channel: &mut Channel, now: Tick) -> u8 {
    channel.latch_status(now);
    channel.read(now)
}

/// OUT over the ticks `0..ticks`, as text.
fn wave(channel: &mut Channel, from: Tick, ticks: Tick) -> alloc::string::String {
    (from..from + ticks).map(|tick| if channel.out(tick) { '-' } else { '_' }).collect()
}

#[test]
fn mode_0_rises_at_the_terminal_count_and_counts_on() {
    let mut channel = channel(0x30, 4);
    assert_eq!(wave(&mut channel, 0, 7), "____---");
    assert_eq!(channel.next_rise(0), Some(4));
    assert_eq!(channel.next_rise(4), None);
    assert_eq!(count(&mut channel, 3), 1);
    assert_eq!(count(&mut channel, 6), 0xFFFE);
    channel.write(9, 10); // the first byte of a new count lowers OUT and stops the counting
    assert!(!channel.out(12));
    assert_eq!(channel.next_rise(12), None);
    channel.write(0, 20);
    assert_eq!(channel.next_rise(20), Some(29));
}

#[test]
fn mode_0_stops_while_gate_is_low() {
    let mut channel = channel(0x30, 10);
    channel.set_gate(false, 4);
    assert_eq!(count(&mut channel, 100), 6);
    assert_eq!(channel.next_rise(100), None);
    channel.set_gate(true, 100);
    assert_eq!(channel.next_rise(100), Some(106));
}

#[test]
fn mode_1_pulses_after_each_trigger() {
    let mut channel = channel(0x32, 3);
    assert_eq!(wave(&mut channel, 0, 4), "----");
    assert_eq!(status(&mut channel, 4) & 0x40, 0x40);
    channel.set_gate(false, 5);
    channel.set_gate(true, 6);
    assert_eq!(wave(&mut channel, 6, 5), "___--");
    assert_eq!(status(&mut channel, 8) & 0x40, 0);
    channel.set_gate(false, 20);
    channel.set_gate(true, 21);
    channel.set_gate(false, 22);
    channel.set_gate(true, 23); // retriggered
    assert_eq!(wave(&mut channel, 23, 4), "___-");
}

#[test]
fn mode_1_needs_a_count_before_a_trigger() {
    let mut channel = channel(0x32, 3);
    channel.write_control(0x32, 10);
    channel.set_gate(false, 11);
    channel.set_gate(true, 12);
    assert_eq!(wave(&mut channel, 12, 4), "----");
}

#[test]
fn mode_2_is_low_for_one_tick_in_n() {
    let mut channel = channel(0x34, 4);
    assert_eq!(wave(&mut channel, 0, 9), "---_---_-");
    assert_eq!((0..5).map(|tick| count(&mut channel, tick)).collect::<alloc::vec::Vec<_>>(), [4, 3, 2, 1, 4]);
    assert_eq!(channel.next_rise(0), Some(4));
    assert_eq!(channel.next_rise(4), Some(8));
    assert_eq!(channel.next_rise(1001), Some(1004));
}

#[test]
fn mode_2_takes_a_new_count_at_the_end_of_the_period() {
    let mut channel = channel(0x34, 4);
    set(&mut channel, 3, 5);
    assert_eq!(status(&mut channel, 6), 0xF4); // OUT high, null count, both bytes, mode 2
    assert_eq!(channel.next_rise(5), Some(8));
    assert_eq!(channel.next_rise(8), Some(11));
    assert_eq!(wave(&mut channel, 6, 6), "-_--_-");
    assert_eq!(status(&mut channel, 12), 0xB4);
}

#[test]
fn mode_2_starts_again_with_gate() {
    let mut channel = channel(0x34, 4);
    channel.set_gate(false, 3);
    assert!(channel.out(3)); // GATE low forces OUT high
    set(&mut channel, 5, 4);
    channel.set_gate(true, 10);
    assert_eq!(channel.next_rise(10), Some(15));
}

#[test]
fn a_pending_count_waits_for_gate() {
    let mut channel = channel(0x34, 4);
    set(&mut channel, 6, 1);
    channel.set_gate(false, 2);
    assert_eq!(count(&mut channel, 50), 2);
    channel.set_gate(true, 100);
    assert_eq!(channel.next_rise(100), Some(106));
}

#[test]
fn mode_3_is_a_square_wave() {
    let mut even = channel(0x36, 4);
    assert_eq!(wave(&mut even, 0, 8), "--__--__");
    assert_eq!((0..5).map(|tick| count(&mut even, tick)).collect::<alloc::vec::Vec<_>>(), [4, 2, 4, 2, 4]);
    let mut odd = channel(0x36, 5);
    assert_eq!(wave(&mut odd, 0, 10), "---__---__");
    assert_eq!((0..5).map(|tick| count(&mut odd, tick)).collect::<alloc::vec::Vec<_>>(), [4, 2, 0, 4, 2]);
    assert_eq!(odd.next_rise(0), Some(5));
}

#[test]
fn mode_3_takes_a_new_count_at_the_end_of_the_half() {
    let mut in_high = channel(0x36, 8);
    set(&mut in_high, 4, 1);
    assert_eq!(in_high.next_rise(1), Some(6));
    assert_eq!(in_high.next_rise(6), Some(10));
    assert_eq!(wave(&mut in_high, 1, 11), "---__--__--");
    let mut in_low = channel(0x36, 8);
    set(&mut in_low, 4, 5);
    assert_eq!(in_low.next_rise(5), Some(8));
    assert_eq!(in_low.next_rise(8), Some(12));
    assert_eq!(wave(&mut in_low, 5, 9), "___--__--");
}

#[test]
fn modes_4_and_5_strobe_for_one_tick() {
    let mut software = channel(0x38, 3);
    assert_eq!(wave(&mut software, 0, 6), "---_--");
    assert_eq!(software.next_rise(0), Some(4));
    assert_eq!(software.next_rise(4), None);
    let mut hardware = channel(0x3A, 3);
    assert_eq!(hardware.next_rise(0), None);
    hardware.set_gate(false, 1);
    hardware.set_gate(true, 10);
    assert_eq!(wave(&mut hardware, 10, 6), "---_--");
    assert_eq!(hardware.next_rise(10), Some(14));
}

#[test]
fn a_control_word_sets_out_at_once() {
    let mut channel = channel(0x34, 4);
    channel.write_control(0x30, 1);
    assert!(!channel.out(1));
    channel.write_control(0x36, 2);
    assert!(channel.out(2));
    assert_eq!(channel.next_rise(2), None);
}

#[test]
fn zero_is_the_largest_count() {
    assert_eq!(channel(0x34, 0).next_rise(0), Some(0x1_0000));
    assert_eq!(channel(0x35, 0).next_rise(0), Some(10_000));
    assert_eq!(channel(0x34, 1).next_rise(0), None);
    assert!(channel(0x34, 1).out(5));
}

#[test]
fn bcd_counts_in_decimal() {
    let mut channel = channel(0x31, 0x0100);
    assert_eq!(count(&mut channel, 1), 0x0099);
    assert_eq!(count(&mut channel, 101), 0x9999);
    assert_eq!(channel.next_rise(0), Some(100));
}

#[test]
fn bytes_pass_as_the_control_word_says() {
    let mut low = channel(0x10, 0);
    low.write(7, 0);
    assert_eq!((low.read(1), low.read(2)), (6, 5));
    let mut high = channel(0x20, 0);
    high.write(2, 0);
    assert_eq!(high.next_rise(0), Some(0x200));
    assert_eq!(high.read(1), 1);
}

#[test]
fn a_latched_count_stays_until_it_is_read() {
    let mut channel = channel(0x34, 1000);
    channel.write_control(0x00, 10);
    channel.write_control(0x00, 20); // ignored
    assert_eq!(channel.read(30), 222);
    assert_eq!(channel.read(40), 3); // 990
    assert_eq!(count(&mut channel, 50), 950);
}

#[test]
fn a_latched_status_is_read_before_the_count() {
    let mut channel = channel(0x34, 1000);
    channel.latch_count(10);
    channel.latch_status(10);
    assert_eq!(channel.read(10), 0xB4);
    assert_eq!(count(&mut channel, 99), 990);
}

#[test]
fn no_sequence_of_writes_breaks_it() {
    let mut seed = 1_u32;
    let mut channel = Channel::started(0x36, true);
    let mut now = 0;
    for _ in 0..200_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = (seed >> 24) as u8;
        now += Tick::from((seed >> 8) & 0x3F);
        match (seed >> 16) & 7 {
            0 => channel.write_control(value, now),
            1 | 2 => channel.write(value, now),
            3 => drop(channel.read(now)),
            4 => channel.set_gate(value & 1 != 0, now),
            5 => channel.latch_status(now),
            6 => channel.latch_count(now),
            _ => {
                if let Some(rise) = channel.next_rise(now) {
                    assert!(rise > now);
                    assert!(channel.clone().out(rise), "{channel:?} at {now}");
                    assert!(!channel.clone().out(rise - 1), "{channel:?} at {now}");
                }
            }
        }
    }
}
