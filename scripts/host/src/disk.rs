//! Disk images that keep what a guest wrote: the hypervisor sends the changed blocks as trace records when the guest has ended.

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::Context as _;
use gnomon_trace::{Kind, Record};

use crate::guest::Guest;
use crate::progress;
use crate::trace;

const BLOCK: usize = 4096;

/// The changed blocks of one disk, in the order in which they came: number and bytes.
type Blocks = Vec<(u64, [u8; BLOCK])>;

/// Writes what the guests changed into the images that are to keep it. `raw` is what came over COM2.
///
/// # Errors
/// If a file cannot be read or written, or the records are damaged.
pub fn save(raw: &Path, guests: &[Guest]) -> anyhow::Result<()> {
    let kept = |guest: &Guest| guest.disks.iter().any(|disk| disk.keep);
    if !guests.iter().any(kept) {
        return Ok(());
    }
    let records = trace::read(&fs::read(raw).context("the machine has sent nothing about its disks")?)?.records;
    for (vm, guest) in (1..).zip(guests) {
        for disk in guest.disks.iter().filter(|disk| disk.keep) {
            let name = disk.file.display();
            match blocks(&records, vm, disk.place as u8) {
                Some(blocks) => write(&disk.file, &blocks).with_context(|| format!("cannot write {name}"))?,
                None => progress::note(&format!("{name} stays as it was: the guest's run had no orderly end")),
            }
        }
    }
    Ok(())
}

/// The blocks of a disk; `None` if not all of them came.
fn blocks(records: &[Record], vm: u8, place: u8) -> Option<Blocks> {
    let mut blocks = Blocks::new();
    let mut of_this = false;
    for record in records.iter().filter(|record| record.vm == vm) {
        match record.kind {
            Kind::DiskBlock => {
                of_this = record.code == place;
                if of_this {
                    blocks.push((record.a, [0; BLOCK]));
                }
            }
            Kind::DiskData if of_this => {
                let (_, block) = blocks.last_mut()?;
                let bytes = [record.a, record.b, record.c].into_iter().flat_map(u64::to_le_bytes);
                for (place, byte) in block.iter_mut().skip(record.arg as usize).zip(bytes) {
                    *place = byte;
                }
            }
            Kind::DiskEnd if record.code == place => return (record.a == blocks.len() as u64).then_some(blocks),
            _ => {}
        }
    }
    None
}

/// Writes blocks into an image, which keeps its size.
fn write(image: &Path, blocks: &Blocks) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).open(image)?;
    let size = file.metadata()?.len();
    for (number, bytes) in blocks {
        let start = number * BLOCK as u64;
        let length = size.saturating_sub(start).min(BLOCK as u64) as usize;
        file.seek(SeekFrom::Start(start))?;
        file.write_all(&bytes[..length])?;
    }
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, vm: u8, code: u8, a: u64) -> Record {
        Record { vm, code, a, ..Record::new(kind) }
    }

    #[test]
    fn blocks_come_together_and_count_only_when_all_came() {
        let data = |arg, a| Record { vm: 1, arg, a, b: 2, ..Record::new(Kind::DiskData) };
        let mut records = vec![
            record(Kind::Header, 0, 0, 0),
            record(Kind::DiskBlock, 1, 0, 7),
            data(0, 1),
            data(4080, u64::MAX),
            record(Kind::DiskBlock, 1, 1, 9),
            data(0, 5),
            record(Kind::DiskBlock, 2, 0, 8),
        ];
        assert_eq!(blocks(&records, 1, 0), None);
        records.push(record(Kind::DiskEnd, 1, 0, 1));
        let found = blocks(&records, 1, 0).unwrap();
        assert_eq!((found.len(), found[0].0), (1, 7));
        assert_eq!((found[0].1[0], found[0].1[8], found[0].1[4087], found[0].1[4088]), (1, 2, 0xFF, 2));
        records.push(record(Kind::DiskEnd, 1, 1, 2));
        assert_eq!(blocks(&records, 1, 1), None);
    }

    #[test]
    fn an_image_keeps_its_size() {
        let image = std::env::temp_dir().join(format!("gnomon-disk-{}", std::process::id()));
        fs::write(&image, vec![1; 5000]).unwrap();
        write(&image, &vec![(1, [9; BLOCK])]).unwrap();
        let bytes = fs::read(&image).unwrap();
        fs::remove_file(&image).unwrap();
        assert_eq!((bytes.len(), bytes[4095], bytes[4096], bytes[4999]), (5000, 1, 9, 9));
    }
}
