use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::dev::disk::tests::disk;
use crate::dev::time::Nanos;

const NOW: Nanos = Nanos::ZERO;
const TABLE: u32 = 0x100;

fn write(bus: &mut Bus, port: u16, value: u8) -> BusEffect {
    bus.write(port, 1, value.into(), NOW)
}

fn read(bus: &mut Bus, port: u16) -> u32 {
    bus.read(port, 1, NOW)
}

/// A PC with a disk of 64 sectors that may master the bus, and a memory whose table has two regions of one sector each.
fn machine() -> (Bus, Vec<u8>) {
    let mut bus = Bus::new("demo").with_disk(0, disk(64, 64));
    assert_eq!(bus.write(0xCF8, 4, 0x8000_0904, NOW), BusEffect::None);
    assert_eq!(write(&mut bus, 0xCFC, 5), BusEffect::None);
    let mut memory = vec![0; 0x3000];
    for (place, entry) in [(TABLE, 0x0000_0200_0000_1F00_u64), (TABLE + 8, 0x8000_0200_0000_2800)] {
        memory[place as usize..][..8].copy_from_slice(&entry.to_le_bytes());
    }
    (bus, memory)
}

/// A command for the two sectors from 5 on, and the bus master started after it.
fn begin(bus: &mut Bus, command: u8, direction: u8) -> BusEffect {
    for (port, value) in [(0xC000, 0), (0xC002, 4), (0x1F6, 0xE0), (0x1F2, 2), (0x1F3, 5), (0x1F4, 0), (0x1F5, 0)] {
        assert_eq!(write(bus, port, value), BusEffect::None);
    }
    assert_eq!(write(bus, 0x1F7, command), BusEffect::None);
    assert_eq!(bus.write(0xC004, 4, TABLE, NOW), BusEffect::None);
    write(bus, 0xC000, direction | 1)
}

/// Carries out a transfer of the primary channel.
fn carry(bus: &mut Bus, memory: &mut [u8]) {
    let at = |at: u64, bytes: usize| at as usize..at as usize + bytes;
    loop {
        match bus.dma_step(Side::Primary) {
            DmaStep::Entry(place) => bus.dma_entry(Side::Primary, memory[at(place, 8)].try_into().unwrap()),
            DmaStep::ToMemory(place, bytes) => bus.dma_take(Side::Primary, &mut memory[at(place, bytes)]),
            DmaStep::FromMemory(place, bytes) => bus.dma_give(Side::Primary, &memory[at(place, bytes)]),
            DmaStep::Done => return,
        }
    }
}

/// The bus master's status, and the disk's.
fn state(bus: &mut Bus) -> (u32, u32) {
    (read(bus, 0xC002), read(bus, 0x3F6))
}

#[test]
fn sectors_go_along_the_table() {
    let (mut bus, mut memory) = machine();
    assert_eq!(begin(&mut bus, 0xC8, 8), BusEffect::Transfer(Side::Primary));
    carry(&mut bus, &mut memory);
    assert_eq!(state(&mut bus), (4, 0x50));
    assert_eq!((&memory[0x1F00..0x2100], &memory[0x2800..0x2A00]), (&[5; 0x200][..], &[6; 0x200][..]));
    memory[0x1F00..0x2100].fill(0x77);
    assert_eq!(begin(&mut bus, 0xCA, 0), BusEffect::Transfer(Side::Primary));
    assert_eq!(state(&mut bus), (1, 0x58));
    carry(&mut bus, &mut memory);
    assert_eq!(state(&mut bus), (4, 0x50));
    assert_eq!(begin(&mut bus, 0x20, 0), BusEffect::None, "programmed I/O is none of its business");
    assert_eq!((read(&mut bus, 0x3F6), read(&mut bus, 0x1F0)), (0x58, 0x77));
}

#[test]
fn the_command_may_come_last_and_pci_may_forbid_it() {
    let (mut bus, mut memory) = machine();
    assert_eq!(write(&mut bus, 0xCFC, 1), BusEffect::None);
    assert_eq!(begin(&mut bus, 0xC8, 8), BusEffect::None);
    assert_eq!(state(&mut bus), (1, 0x58), "both wait");
    assert_eq!(write(&mut bus, 0xCFC, 5), BusEffect::None);
    assert_eq!(write(&mut bus, 0x1F7, 0xC8), BusEffect::Transfer(Side::Primary));
    carry(&mut bus, &mut memory);
    assert_eq!((state(&mut bus), memory[0x1F00]), ((4, 0x50), 5));
    assert_eq!(write(&mut bus, 0xCFC, 0), BusEffect::None);
    assert_eq!(read(&mut bus, 0xC002), 0xFF, "no ports");
}

#[test]
fn a_table_that_is_too_short_ends_without_an_interrupt() {
    let (mut bus, mut memory) = machine();
    memory[TABLE as usize + 7] = 0x80;
    assert_eq!(begin(&mut bus, 0xC8, 8), BusEffect::Transfer(Side::Primary));
    carry(&mut bus, &mut memory);
    assert_eq!((state(&mut bus), memory[0x2800]), ((0, 0x50), 0));
    assert_eq!(begin(&mut bus, 0xC8, 8), BusEffect::Transfer(Side::Primary));
    bus.dma_fail(Side::Primary);
    assert_eq!(state(&mut bus), (6, 0x51), "given up: error and interrupt");
}
