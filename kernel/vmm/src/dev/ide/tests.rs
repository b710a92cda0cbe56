use super::super::disk::tests::disk;
use super::*;

/// A channel with a master of 64 sectors.
fn channel() -> Channel {
    let mut channel = Channel::new();
    channel.attach(0, disk(64, 64));
    channel
}

fn command(channel: &mut Channel, sector: u32, count: u8, command: u8) {
    let [low, mid, high, top] = sector.to_le_bytes();
    for (register, value) in [(6, 0xE0 | top), (2, count), (3, low), (4, mid), (5, high), (7, command)] {
        channel.write(register, value);
    }
}

fn data(channel: &mut Channel, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    channel.read_data(&mut data);
    data
}

#[test]
fn reads_give_one_interrupt_a_sector() {
    let mut channel = channel();
    command(&mut channel, 5, 2, 0x20);
    for sector in [5, 6] {
        assert!(channel.interrupt());
        assert_eq!(channel.alternate_status(), IDLE | STATUS_REQUEST);
        assert!(channel.interrupt());
        assert_eq!(channel.read(7), IDLE | STATUS_REQUEST);
        assert!(!channel.interrupt());
        assert_eq!(data(&mut channel, SECTOR), [sector; SECTOR]);
    }
    assert_eq!((channel.read(7), channel.interrupt()), (IDLE, false));
    assert_eq!(data(&mut channel, 2), [0; 2]);
}

#[test]
fn written_sectors_read_back() {
    let mut channel = channel();
    command(&mut channel, 9, 2, 0x30);
    assert_eq!((channel.read(7), channel.interrupt()), (IDLE | STATUS_REQUEST, false));
    channel.write_data(&[0x5A; SECTOR]);
    assert!(channel.interrupt());
    assert_eq!(channel.read(7), IDLE | STATUS_REQUEST);
    channel.write_data(&[0xA5; SECTOR]);
    assert!(channel.interrupt());
    assert_eq!(channel.read(7), IDLE);
    command(&mut channel, 8, 4, 0x20);
    let read = data(&mut channel, 4 * SECTOR);
    let expected: Vec<u8> = [8, 0x5A, 0xA5, 11].into_iter().flat_map(|byte| [byte; SECTOR]).collect();
    assert_eq!(read, expected);
}

#[test]
fn multiple_moves_blocks() {
    let mut channel = channel();
    command(&mut channel, 0, 16, 0xC4); // one block from the start
    assert_eq!(data(&mut channel, 16 * SECTOR)[15 * SECTOR], 15);
    assert_eq!(channel.read(7), IDLE);
    command(&mut channel, 0, 0, 0xC6);
    command(&mut channel, 0, 6, 0xC4);
    assert_eq!((channel.read(7), channel.read(1)), (IDLE | STATUS_ERROR, ERROR_ABORTED)); // no blocks
    command(&mut channel, 0, 3, 0xC6);
    assert_eq!(channel.read(7) & STATUS_ERROR, STATUS_ERROR);
    command(&mut channel, 0, 4, 0xC6);
    assert_eq!(channel.read(7), IDLE);
    command(&mut channel, 0, 6, 0xC4);
    let mut interrupts = 0;
    let mut sectors = Vec::new();
    while channel.alternate_status() & STATUS_REQUEST != 0 {
        interrupts += usize::from(channel.interrupt());
        channel.read(7);
        sectors.push(data(&mut channel, SECTOR)[0]);
    }
    assert_eq!((sectors, interrupts), (vec![0, 1, 2, 3, 4, 5], 2));
    command(&mut channel, 0, 6, 0xC5);
    channel.write_data(&[1; 4 * SECTOR]);
    assert!(channel.interrupt());
    channel.read(7);
    channel.write_data(&[2; 2 * SECTOR]);
    assert_eq!((channel.interrupt(), channel.read(7)), (true, IDLE));
}

#[test]
fn addresses_of_48_bits_and_of_cylinders() {
    let mut channel = channel();
    for (register, value) in [(6, 0xE0), (2, 0), (3, 0), (4, 0), (5, 0), (2, 1), (3, 33), (4, 0), (5, 0), (7, 0x24)] {
        channel.write(register, value);
    }
    assert_eq!(data(&mut channel, SECTOR), [33; SECTOR]);
    for (register, value) in [(6, 0xA0), (2, 1), (3, 11), (4, 0), (5, 0), (7, 0x20)] {
        channel.write(register, value);
    }
    assert_eq!(data(&mut channel, SECTOR), [10; SECTOR]);
    command(&mut channel, 63, 2, 0x20);
    assert_eq!((channel.read(7), channel.read(1)), (IDLE | STATUS_ERROR, ERROR_ADDRESS));
    command(&mut channel, 0, 0, 0x27);
    assert_eq!(channel.read(3), 63);
}

#[test]
fn it_says_what_it_is() {
    let mut channel = channel();
    command(&mut channel, 0, 0, 0xEC);
    assert!(channel.interrupt());
    let words = data(&mut channel, SECTOR);
    assert_eq!(&words[54..60], b"NGMONO");
    assert_eq!((words[120], words[200], words[0] & 0x80), (64, 64, 0));
    assert_eq!(channel.read(7), IDLE);
    command(&mut channel, 0, 0, 0xA1);
    assert_eq!(channel.read(1), ERROR_ABORTED);
}

#[test]
fn an_absent_drive_shows_zero_and_takes_no_command() {
    let mut channel = channel();
    channel.write(6, 0xB0);
    assert_eq!(channel.read(7), 0);
    channel.write(7, 0xEC);
    assert!(!channel.interrupt());
    channel.write(6, 0xA0);
    assert_eq!(channel.read(7), IDLE);
    let mut empty = Channel::new();
    empty.write(7, 0xEC);
    assert_eq!((empty.read(7), empty.read(2), empty.alternate_status()), (0, 0, 0));
}

#[test]
fn resets_leave_the_signature() {
    let mut channel = channel();
    command(&mut channel, 0, 1, 0x20);
    channel.write_control(0x06);
    channel.write_control(0x02);
    assert!(!channel.interrupt());
    assert_eq!([1, 2, 3, 4, 5].map(|register| channel.read(register)), [1, 1, 1, 0, 0]);
    assert_eq!(channel.read(7), IDLE);
    command(&mut channel, 0, 1, 0x20);
    assert!(!channel.interrupt()); // nIEN
    channel.write_control(0);
    assert!(channel.interrupt());
}

#[test]
fn a_drive_that_is_not_there_shows_it() {
    let mut channel = Channel::new();
    assert_eq!((channel.read(7), channel.read(6)), (0, 0));
    channel.attach(1, disk(4, 4));
    channel.write(6, 0xA0);
    assert_eq!(channel.read(7), IDLE, "a kernel that waits for the master goes on");
    channel.write(6, 0xB0);
    channel.write(7, 0xEC);
    assert_eq!(channel.read(7), IDLE | STATUS_REQUEST);
    let mut alone = self::channel();
    alone.write(6, 0xB0);
    assert_eq!(alone.read(7), 0);
}

#[test]
fn a_full_store_fails_the_write() {
    let mut channel = Channel::new();
    channel.attach(1, disk(64, 0));
    channel.write(6, 0xF0);
    for (register, value) in [(2, 1), (3, 0), (4, 0), (5, 0), (7, 0x30)] {
        channel.write(register, value);
    }
    channel.write_data(&[1; SECTOR]);
    assert_eq!((channel.read(7), channel.read(1)), (IDLE | STATUS_ERROR, ERROR_ABORTED));
}

#[test]
fn no_sequence_of_accesses_breaks_it() {
    let mut seed = 11_u32;
    let mut channel = channel();
    for _ in 0..300_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (value, register) = ((seed >> 24) as u8, (seed >> 20) as u16 & 7);
        match (seed >> 16) & 7 {
            0 => channel.write_control(value),
            1 | 2 => drop(channel.read(register)),
            3 => drop(data(&mut channel, usize::from(value) * 4)),
            4 => channel.write_data(&vec![value; usize::from(value) * 4]),
            _ => channel.write(register, value),
        }
        assert!(channel.filled <= channel.buffer.len());
    }
}

#[test]
fn a_slave_answers_for_a_master_that_is_not_there() {
    let mut channel = Channel::new();
    channel.attach(1, disk(64, 64));
    assert_eq!(channel.read(7), IDLE);
    command(&mut channel, 0, 0, 0xEC);
    assert!(channel.interrupt());
    assert_eq!((channel.read(7), channel.read(1)), (STATUS_READY | STATUS_ERROR, ERROR_ABORTED));
    assert!(!channel.interrupt());
    channel.write(6, 0xF0);
    assert_eq!(channel.alternate_status(), IDLE, "the slave had no error");
    channel.write(7, 0xEC);
    assert_eq!(channel.read(7), IDLE | STATUS_REQUEST);
    assert_eq!(data(&mut channel, SECTOR)[..2], [0x40, 0]);
    channel.write(6, 0xA0);
    channel.write(7, 0x90);
    assert_eq!((channel.interrupt(), channel.read(1)), (true, DIAGNOSTICS_PASSED));
    channel.write_control(CONTROL_RESET);
    channel.write_control(0);
    assert_eq!(channel.read(7), IDLE);
}
