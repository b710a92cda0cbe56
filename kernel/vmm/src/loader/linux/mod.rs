//! Linux by the 32-bit boot protocol (Linux, Documentation/arch/x86/boot.rst and zero-page.rst): the protected-mode part of
//! a bzImage is entered directly, and the boot parameters say what the real-mode part would have found out.
//!
//! ```text
//!   low memory   boot parameters (one page), GDT, command line
//!   kernel       at its preferred address if it can be moved, else at 1 MiB; with `init_size` bytes to unpack itself
//!   high memory  initrd, as high as the kernel allows
//! ```

mod error;
mod header;
mod params;

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::error::LoadError;
use super::layout::{HIGH_START, Layout, PAGE, Range};
use super::{Entry, Module, Plan, TableAt};
use crate::config::GuestConfig;
pub use error::LinuxError;
use header::SetupHeader;
use params::{GDT_BYTES, GDT_OFFSET, Params};

/// Files of an initrd that follow one another begin at multiples of this.
const INITRD_ALIGN: usize = 4;

/// Whether `image` has a Linux setup header, be it one that can be served or not.
pub(super) fn is_image(image: &[u8]) -> bool {
    !matches!(SetupHeader::find(image), Err(LoadError::NotLinux))
}

pub(super) fn plan<'a>(image: &'a [u8], modules: &[Module<'a>], guest: &GuestConfig) -> Result<Plan<'a>, LoadError> {
    let header = SetupHeader::find(image)?;
    let kernel = header.kernel()?;
    if guest.arguments.len() as u64 > header.longest_command_line() {
        let (bytes, most) = (guest.arguments.len() as u64, header.longest_command_line());
        return Err(LoadError::Linux(LinuxError::CommandLine { bytes, most }));
    }
    let initrd = concatenate(modules);
    let mut layout = Layout::new(guest.memory);
    let load = place_kernel(&header, kernel.len() as u64, initrd.len() as u64, &mut layout)?;
    let params = Params { header: &header, load, command_line: &guest.arguments, map: layout.map() };
    let base = layout.place_info(params.bytes(), PAGE)?;
    let initrd_at = place_initrd(&header, initrd.len() as u64, &mut layout)?;

    let mut writes = alloc::vec![(u64::from(load), kernel.into())];
    if !initrd.is_empty() {
        writes.push((initrd_at.start, initrd));
    }
    writes.push((base.into(), params.build(base, initrd_at).into()));
    let gdt = TableAt { base: base.wrapping_add(GDT_OFFSET), limit: GDT_BYTES - 1 };
    Ok(Plan { writes, entry: Entry { eip: load, esi: base, gdt: Some(gdt), ..Entry::default() } })
}

/// The modules as one initrd; the kernel unpacks archives that follow one another. A single one is not copied.
fn concatenate<'a>(modules: &[Module<'a>]) -> Cow<'a, [u8]> {
    if let [(bytes, _)] = modules {
        return (*bytes).into();
    }
    let mut all = Vec::new();
    for (bytes, _) in modules {
        all.resize(all.len().next_multiple_of(INITRD_ALIGN), 0);
        all.extend_from_slice(bytes);
    }
    all.into()
}

/// The kernel's load address. It gets `init_size` bytes from there, which it unpacks itself into.
fn place_kernel(header: &SetupHeader<'_>, bytes: u64, initrd: u64, layout: &mut Layout) -> Result<u32, LoadError> {
    let memory = layout.memory();
    let room = bytes.max(header.init_size());
    let preferred = header.preferred_address();
    let wanted = Range::sized(preferred, room);
    let error = match layout.take(wanted) {
        Ok(()) => return u32::try_from(preferred).map_err(|_| out_of_reach(wanted)),
        Err(LoadError::TooLittleMemory { needed, .. }) => {
            let for_initrd = initrd.next_multiple_of(PAGE);
            LoadError::TooLittleMemory { needed: needed.saturating_add(for_initrd), memory }
        }
        Err(other) => other,
    };
    let Some(align) = header.relocation() else { return Err(error) };
    let window = Range { start: HIGH_START, end: memory };
    let place = layout.place(room, align, window).ok_or(error)?;
    u32::try_from(place).map_err(|_| error)
}

fn out_of_reach(range: Range) -> LoadError {
    LoadError::OutOfReach { start: range.start, end: range.end }
}

fn place_initrd(header: &SetupHeader<'_>, bytes: u64, layout: &mut Layout) -> Result<Range, LoadError> {
    if bytes == 0 {
        return Ok(Range { start: 0, end: 0 });
    }
    let memory = layout.memory();
    let end = memory.min(header.initrd_end());
    let start = layout.place_high(bytes, PAGE, Range { start: HIGH_START, end }).ok_or_else(|| {
        let needed = layout.high_end().saturating_add(bytes.next_multiple_of(PAGE));
        LoadError::TooLittleMemory { needed, memory }
    })?;
    Ok(Range::sized(start, bytes))
}

#[cfg(test)]
pub(super) mod tests;
