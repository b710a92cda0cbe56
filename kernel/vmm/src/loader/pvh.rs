//! PVH: the direct boot protocol of Xen's HVM guests (Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h), which
//! Linux, NetBSD and small kernels offer by an ELF note.

use alloc::vec::Vec;

use super::error::LoadError;
use super::layout::MapEntry;
use super::{Entry, Module, Plan, Range, elf};
use crate::config::GuestConfig;

/// The note's owner, with its final zero, and its type: `XEN_ELFNOTE_PHYS32_ENTRY`.
const OWNER: &[u8] = b"Xen\0";
const PHYS32_ENTRY: u32 = 18;

const START_INFO_MAGIC: u32 = 0x336E_C578;
/// Version 1 has the memory map.
const VERSION: u32 = 1;
const START_INFO_BYTES: u64 = 56;
const MODULE_BYTES: u64 = 32;
const MAP_ENTRY_BYTES: u64 = 24;

/// Whether `image` has the note.
pub(super) fn is_image(image: &[u8]) -> bool {
    elf::note(image, OWNER, PHYS32_ENTRY).is_some()
}

pub(super) fn plan<'a>(image: &'a [u8], modules: &[Module<'a>], guest: &GuestConfig) -> Result<Plan<'a>, LoadError> {
    let entry = elf::note(image, OWNER, PHYS32_ENTRY).ok_or(LoadError::NotPvh)?;
    let mut parsed = elf::parse_with_entry(image, entry)?;
    let (mut layout, placed) = parsed.place(modules, guest.memory)?;
    let map = layout.map();
    let info = StartInfo { map: &map, command_line: &guest.arguments, modules: &placed };
    let base = layout.place_info(info.build(0).len() as u64, 16)?;
    let mut writes = parsed.writes(modules, &placed);
    writes.push((base.into(), info.build(base.into()).into()));
    Ok(Plan { writes, entry: Entry { eip: parsed.entry, ebx: base, ..Entry::default() } })
}

/// Everything that `hvm_start_info` tells.
struct StartInfo<'a> {
    map: &'a [MapEntry],
    command_line: &'a str,
    modules: &'a [(Range, &'a str)],
}

impl StartInfo<'_> {
    /// The structure for guest-physical address `base`, followed by the module list, the memory map and the strings.
    fn build(&self, base: u64) -> Vec<u8> {
        let modules = base.saturating_add(START_INFO_BYTES);
        let map = modules.saturating_add(MODULE_BYTES.saturating_mul(self.modules.len() as u64));
        let strings_at = map.saturating_add(MAP_ENTRY_BYTES.saturating_mul(self.map.len() as u64));
        let mut strings = Vec::new();
        let mut string = |text: &str| {
            let at = strings_at.saturating_add(strings.len() as u64);
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };

        let mut block = Vec::new();
        let halves = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        put(&mut block, [halves(START_INFO_MAGIC, VERSION), halves(0, self.modules.len() as u32)]);
        put(&mut block, [modules, string(self.command_line), 0]); // no RSDP named: it is found by its signature
        put(&mut block, [map, halves(self.map.len() as u32, 0)]);
        for (range, text) in self.modules {
            put(&mut block, [range.start, range.bytes(), string(text), 0]);
        }
        for entry in self.map {
            put(&mut block, [entry.range.start, entry.range.bytes(), halves(entry.kind as u32, 0)]);
        }
        block.append(&mut strings);
        block
    }
}

fn put<const N: usize>(block: &mut Vec<u8>, numbers: [u64; N]) {
    block.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
}

#[cfg(test)]
#[path = "pvh_tests.rs"]
pub(super) mod tests;
