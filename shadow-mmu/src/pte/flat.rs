//! The guest does not page (CR0.PG = 0): no tables, every linear address is the physical one.

use super::{GuestFormat, GuestPte};
use crate::addr::{Gpa, Level};
use crate::controls::PagingCtx;
use crate::mem::{CmpxchgError, GuestMem};

/// Paging off.
#[derive(Clone, Copy, Debug)]
pub struct Flat;

impl GuestFormat for Flat {
    const LEVELS: u8 = 0;
    const ENTRY_SHIFT: u32 = 3;
    const INDEX_BITS: u32 = 9;
    const ADDRESS_BITS: u32 = 32;
    const ACCESSED: u64 = 0;
    const DIRTY: u64 = 0;

    fn decode(_raw: u64, _level: Level, _ctx: &PagingCtx) -> GuestPte {
        GuestPte::Absent
    }

    fn read<G: GuestMem>(_mem: &G, _gpa: Gpa) -> Option<u64> {
        None
    }

    fn cmpxchg<G: GuestMem>(_mem: &G, _gpa: Gpa, _old: u64, _new: u64) -> Result<(), CmpxchgError> {
        Err(CmpxchgError::NoMemory)
    }
}
