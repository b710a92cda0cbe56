use crate::{Arena, BootError, List};

/// Memory regions kept from the loader's map.
pub const MAX_REGIONS: usize = 64;
/// Boot modules kept.
pub const MAX_MODULES: usize = 128;

/// Whether a memory region may be used by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// Ordinary memory.
    Usable,
    /// Firmware, devices, ACPI, defective memory, or the loader's own data: never touched as memory.
    Reserved,
}

/// A physical range as the loader's memory map gives it: byte addresses, not aligned, possibly overlapping others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First byte, physical.
    pub start: u64,
    /// One past the last byte, physical; not below `start`.
    pub end: u64,
    /// What the loader says about it.
    pub kind: MemoryKind,
}

/// A file the loader placed in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// First byte, physical.
    pub start: u64,
    /// One past the last byte, physical; not below `start`.
    pub end: u64,
    /// The words after the file's name (GRUB) or with it (QEMU); printable ASCII.
    pub command_line: &'static str,
}

/// A range of physical bytes, `end` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// Where the parts of the kernel's image are, physical and page-aligned. All zero when no kernel is running (host tests).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelImage {
    /// The whole image with its zeroed memory.
    pub all: Range,
    /// Code: executable, never writable.
    pub text: Range,
    /// Constants: neither executable nor writable.
    pub rodata: Range,
    /// The page below the boot stack that stays unmapped, so that an overflow faults.
    pub stack_guard: Range,
}

/// What the kernel learns from its boot loader.
#[derive(Debug, Clone)]
pub struct BootInfo {
    /// The kernel's command line, without the image's own path where the loader gives one.
    pub command_line: &'static str,
    /// The loader's memory map, in its order.
    pub memory: List<MemoryRegion, MAX_REGIONS>,
    /// The boot modules, in order.
    pub modules: List<Module, MAX_MODULES>,
    /// The loader's name, "unknown" if it gives none.
    pub loader_name: &'static str,
    /// The kernel's own place.
    pub image: KernelImage,
}

impl BootInfo {
    pub(crate) fn empty() -> Self {
        Self {
            command_line: "",
            memory: List::new(MemoryRegion { start: 0, end: 0, kind: MemoryKind::Reserved }),
            modules: List::new(Module { start: 0, end: 0, command_line: "" }),
            loader_name: "unknown",
            image: KernelImage::default(),
        }
    }

    /// Adds a region of the memory map; a length that runs past the address space is cut there, an empty region is dropped.
    pub(crate) fn add_region(&mut self, start: u64, length: u64, kind: MemoryKind) -> Result<(), BootError> {
        let end = start.saturating_add(length);
        if start == end {
            return Ok(());
        }
        self.memory.push(MemoryRegion { start, end, kind }).map_err(|_| BootError::TooMany("memory map", MAX_REGIONS))
    }

    pub(crate) fn add_module(
        &mut self,
        start: u32,
        end: u32,
        command_line: &[u8],
        arena: &mut Arena,
    ) -> Result<(), BootError> {
        if end < start {
            return Err(BootError::Malformed("module", "it ends below its start"));
        }
        let command_line = arena.copy(command_line)?;
        self.modules
            .push(Module { start: start.into(), end: end.into(), command_line })
            .map_err(|_| BootError::TooMany("module", MAX_MODULES))
    }
}
