//! A disk image that the guest may change: the image itself is never written; blocks that were have copies of their own.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a sector.
pub(super) const SECTOR: usize = 512;
/// Bytes of a block, the unit in which changes are kept.
pub const BLOCK: usize = 4096;
const SECTORS_IN_BLOCK: u64 = (BLOCK / SECTOR) as u64;

/// Where changed blocks are kept.
pub trait BlockStore: fmt::Debug {
    /// Room for one more block, filled with `bytes`; `None` if there is none.
    fn add(&mut self, bytes: &[u8; BLOCK]) -> Option<BlockId>;
    /// Reads a part of a block.
    fn read(&self, block: BlockId, offset: usize, bytes: &mut [u8]);
    /// Writes a part of a block.
    fn write(&mut self, block: BlockId, offset: usize, bytes: &[u8]);
}

/// A block in its store, as the store numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId(pub u64);

/// Why a sector cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskError {
    /// It is beyond the end.
    Address,
    /// The store has no room for another changed block.
    Full,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    image: &'static [u8],
    changed: Vec<Option<BlockId>>,
    store: Box<dyn BlockStore>,
}

impl Disk {
    /// A disk over `image`; a last sector that is not whole is filled up with zeroes.
    #[must_use]
    pub fn new(image: &'static [u8], store: Box<dyn BlockStore>) -> Self {
        Self { image, changed: vec![None; image.len().div_ceil(BLOCK)], store }
    }

    /// Its size.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.image.len().div_ceil(SECTOR) as u64
    }

    pub(super) fn read(&self, sector: u64, bytes: &mut [u8; SECTOR]) -> Result<(), DiskError> {
        match self.place(sector)? {
            (Some(block), offset) => self.store.read(block, offset, bytes),
            (None, _) => self.original(sector, bytes),
        }
        Ok(())
    }

    pub(super) fn write(&mut self, sector: u64, bytes: &[u8; SECTOR]) -> Result<(), DiskError> {
        let (block, offset) = self.place(sector)?;
        let block = match block {
            Some(block) => block,
            None => self.copy(sector)?,
        };
        self.store.write(block, offset, bytes);
        Ok(())
    }

    /// Calls `each` with the number and the bytes of each block that was changed.
    pub fn for_each_changed(&self, mut each: impl FnMut(u64, &[u8; BLOCK])) {
        let mut bytes = [0; BLOCK];
        for (number, block) in self.changed.iter().enumerate() {
            if let Some(block) = block {
                self.store.read(*block, 0, &mut bytes);
                each(number as u64, &bytes);
            }
        }
    }

    /// The changed block that holds a sector, if there is one, and the sector's place in it.
    fn place(&self, sector: u64) -> Result<(Option<BlockId>, usize), DiskError> {
        if sector >= self.sectors() {
            return Err(DiskError::Address);
        }
        let block = self.changed.get((sector / SECTORS_IN_BLOCK) as usize).copied().flatten();
        Ok((block, (sector % SECTORS_IN_BLOCK) as usize * SECTOR))
    }

    /// Gives the block of a sector a copy of its own.
    fn copy(&mut self, sector: u64) -> Result<BlockId, DiskError> {
        let number = sector / SECTORS_IN_BLOCK;
        let mut bytes = [0; BLOCK];
        for (place, sector) in bytes.as_chunks_mut::<SECTOR>().0.iter_mut().zip(number * SECTORS_IN_BLOCK..) {
            self.original(sector, place);
        }
        let block = self.store.add(&bytes).ok_or(DiskError::Full)?;
        if let Some(place) = self.changed.get_mut(number as usize) {
            *place = Some(block);
        }
        Ok(block)
    }

    /// A sector of the image, with zeroes behind its end.
    fn original(&self, sector: u64, bytes: &mut [u8; SECTOR]) {
        let start = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(SECTOR);
        let rest = self.image.get(start..).unwrap_or(&[]);
        let found = rest.get(..SECTOR).unwrap_or(rest);
        bytes.fill(0);
        if let Some(place) = bytes.get_mut(..found.len()) {
            place.copy_from_slice(found);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A store with room for so many blocks.
    #[derive(Debug)]
    pub(in crate::dev) struct Memory {
        blocks: Vec<[u8; BLOCK]>,
        room: usize,
    }

    impl BlockStore for Memory {
        fn add(&mut self, bytes: &[u8; BLOCK]) -> Option<BlockId> {
            (self.blocks.len() < self.room).then(|| {
                self.blocks.push(*bytes);
                BlockId(self.blocks.len() as u64 - 1)
            })
        }

        fn read(&self, block: BlockId, offset: usize, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.blocks[block.0 as usize][offset..offset + bytes.len()]);
        }

        fn write(&mut self, block: BlockId, offset: usize, bytes: &[u8]) {
            self.blocks[block.0 as usize][offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// A disk whose sector n is full of the byte n.
    pub(in crate::dev) fn disk(sectors: usize, room: usize) -> Disk {
        let image: Vec<u8> = (0..sectors * SECTOR).map(|at| (at / SECTOR) as u8).collect();
        Disk::new(image.leak(), Box::new(Memory { blocks: Vec::new(), room }))
    }

    #[test]
    fn what_is_written_comes_back_and_the_rest_stays() {
        let mut disk = disk(20, 9);
        let mut sector = [0; SECTOR];
        assert_eq!(disk.write(9, &[0xAB; SECTOR]), Ok(()));
        for number in 0..20 {
            assert_eq!(disk.read(number, &mut sector), Ok(()));
            assert_eq!(sector, [if number == 9 { 0xAB } else { number as u8 }; SECTOR]);
        }
        let mut changed = Vec::new();
        disk.for_each_changed(|number, bytes| changed.push((number, bytes[0], bytes[SECTOR])));
        assert_eq!(changed, [(1, 8, 0xAB)]);
    }

    #[test]
    fn it_ends_where_the_image_ends() {
        let mut disk = disk(3, 1);
        assert_eq!(disk.read(3, &mut [0; SECTOR]), Err(DiskError::Address));
        assert_eq!(disk.write(u64::MAX, &[0; SECTOR]), Err(DiskError::Address));
        let odd = Disk::new(&[7; 700], Box::new(Memory { blocks: Vec::new(), room: 0 }));
        let mut sector = [1; SECTOR];
        assert_eq!((odd.sectors(), odd.read(1, &mut sector)), (2, Ok(())));
        assert_eq!((sector[187], sector[188]), (7, 0));
    }

    #[test]
    fn a_full_store_refuses() {
        let mut disk = disk(24, 1);
        assert_eq!(disk.write(0, &[1; SECTOR]), Ok(()));
        assert_eq!(disk.write(7, &[1; SECTOR]), Ok(()));
        assert_eq!(disk.write(8, &[1; SECTOR]), Err(DiskError::Full));
    }
}
