//! What a guest wrote to its disks, on its way to the host: blocks in trace records over COM2 when the guest has ended.

use gnomon_trace::{Kind, Record};

use crate::dev::{BLOCK, Disk};
use crate::vm::Vm;

/// Bytes of a block that one record carries.
const CARRIED: usize = 24;

/// Sends the changed blocks of the disks in `places`. Not inlined: its buffers must not lie on the stack while guests run.
#[inline(never)]
pub(crate) fn send(vm: &Vm, places: &[usize]) {
    for (place, disk) in vm.bus.disks().filter(|(place, _)| places.contains(place)) {
        send_disk(vm, place as u8, disk);
    }
}

fn send_disk(vm: &Vm, place: u8, disk: &Disk) {
    let mut blocks = 0;
    disk.for_each_changed(|number, bytes| {
        blocks += 1;
        let head = Record { code: place, a: number, ..Record::new(Kind::DiskBlock) };
        vm.tracer.send(core::iter::once(head).chain(data(bytes)));
    });
    vm.tracer.send(core::iter::once(Record { code: place, a: blocks, ..Record::new(Kind::DiskEnd) }));
    log::info!("guest {}: disk {place}: {blocks} blocks of {BLOCK} bytes were changed and sent to be saved", vm.name);
}

fn data(bytes: &[u8; BLOCK]) -> impl Iterator<Item = Record> {
    bytes.chunks(CARRIED).enumerate().map(|(index, chunk)| {
        let mut words = [0; CARRIED];
        for (place, byte) in words.iter_mut().zip(chunk) {
            *place = *byte;
        }
        let word = |at: usize| {
            let mut bytes = [0; 8];
            for (place, byte) in bytes.iter_mut().zip(words.iter().skip(at)) {
                *place = *byte;
            }
            u64::from_le_bytes(bytes)
        };
        let offset = (index * CARRIED) as u32;
        Record { arg: offset, a: word(0), b: word(8), c: word(16), ..Record::new(Kind::DiskData) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_carried_whole() {
        let block: [u8; BLOCK] = core::array::from_fn(|at| (at * 7) as u8);
        let mut back = [0; BLOCK + CARRIED];
        for record in data(&block) {
            let start = record.arg as usize;
            for (place, word) in back[start..start + CARRIED].chunks_mut(8).zip([record.a, record.b, record.c]) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
        assert_eq!(back[..BLOCK], block);
    }
}
