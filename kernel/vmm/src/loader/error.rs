//! Why an image cannot be loaded.

use core::fmt;

pub use super::linux::LinuxError;

/// Where a device hole begins and ends on a PC; no RAM is there.
const HOLE: &str = "0xa0000-0xfffff";

/// Why an image cannot be loaded; its `Display` is one line that names what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// No multiboot header in the first 8192 bytes.
    NotMultiboot,
    /// A boot sector instead of a kernel.
    BootSector,
    /// No multiboot2 header in the first 32768 bytes.
    NotMultiboot2,
    /// No ELF note that names a PVH entry point.
    NotPvh,
    /// No Linux setup header.
    NotLinux,
    /// A multiboot2 header for another architecture.
    Architecture {
        /// Its number.
        number: u32,
    },
    /// A multiboot2 header tag that must be understood and is not.
    RequiredTag {
        /// Its type.
        kind: u16,
    },
    /// Multiboot2 information that the image cannot do without and that is not there.
    RequiredInformation {
        /// The type of the information's tag.
        kind: u32,
    },
    /// A Linux kernel that cannot be served.
    Linux(LinuxError),
    /// A multiboot header whose checksum is wrong.
    Checksum {
        /// Its place in the file.
        offset: u32,
    },
    /// The header requires something that is not known.
    RequiredFlags {
        /// The bits 2..=15 of its flags that are not known.
        flags: u32,
    },
    /// The image is a 64-bit ELF file without load addresses in its header.
    Elf64,
    /// The image is neither an ELF file nor has it load addresses in its header.
    NoFormat,
    /// An ELF file that breaks the format's rules.
    MalformedElf {
        /// What is wrong, as half a sentence.
        problem: &'static str,
    },
    /// Load addresses in the multiboot header that do not fit together.
    MalformedAddresses {
        /// What is wrong, as half a sentence.
        problem: &'static str,
    },
    /// A part of the image belongs where a PC has no RAM.
    InHole {
        /// Guest-physical address of the part.
        start: u64,
        /// Its end (exclusive).
        end: u64,
    },
    /// The guest's memory is too small.
    TooLittleMemory {
        /// How many bytes the image, its modules and the multiboot information need.
        needed: u64,
        /// How many the guest has.
        memory: u64,
    },
    /// A part of the image belongs beyond the memory that any guest can have.
    OutOfReach {
        /// Guest-physical address of the part.
        start: u64,
        /// Its end (exclusive).
        end: u64,
    },
    /// The entry point lies in no part of the image.
    Entry {
        /// The entry point.
        address: u32,
    },
    /// A flat image with modules.
    FlatModules,
    /// An image without a byte.
    Empty,
    /// The guest's memory refused bytes that should fit.
    Refused {
        /// Guest-physical address of the bytes.
        start: u64,
        /// How many they are.
        bytes: u64,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotMultiboot => {
                write!(
                    f,
                    "no kernel of a known protocol: expected a Linux bzImage, or a multiboot header, or a PVH note"
                )
            }
            Self::BootSector => write!(
                f,
                "a disk image with a boot sector, whose real-mode code is not run: expected the kernel itself, and this image as a disk (--disk)"
            ),
            Self::NotMultiboot2 => {
                write!(f, "not a multiboot2 image: expected its header (0xe85250d6) in the first 32768 bytes")
            }
            Self::NotPvh => write!(f, "not a PVH image: expected ELF32 with a note of owner Xen and type 18"),
            Self::NotLinux => write!(f, "not a Linux bzImage: expected `HdrS` at offset 0x202"),
            Self::Architecture { number } => {
                write!(f, "a multiboot2 image for architecture {number}: expected 0, the i386")
            }
            Self::RequiredTag { kind } => {
                write!(f, "the multiboot2 header requires tag {kind}: expected none but 0 to 6 and 8 to 10")
            }
            Self::RequiredInformation { kind } => {
                write!(f, "the image requires multiboot2 information {kind}: expected none but 1-4, 6, 8, 9, 21")
            }
            Self::Linux(ref error) => error.fmt(f),
            Self::Checksum { offset } => write!(
                f,
                "multiboot header at offset {offset:#x} with a wrong checksum: expected its fields to add up to 0"
            ),
            Self::RequiredFlags { flags } => {
                write!(f, "the multiboot header requires flags {flags:#x}: expected none but bits 0, 1, 2 and 16")
            }
            Self::Elf64 => {
                write!(f, "a 64-bit ELF image: expected ELF32, or load addresses in the multiboot header (bit 16)")
            }
            Self::NoFormat => {
                write!(
                    f,
                    "a multiboot image of no known format: expected ELF32, or load addresses in the header (bit 16)"
                )
            }
            Self::MalformedElf { problem } => write!(f, "malformed ELF image: {problem}"),
            Self::MalformedAddresses { problem } => write!(f, "malformed addresses in the multiboot header: {problem}"),
            Self::InHole { start, end } => {
                write!(
                    f,
                    "the image wants {start:#x}-{:#x}: expected nothing in the hole {HOLE}",
                    end.saturating_sub(1)
                )
            }
            Self::TooLittleMemory { needed, memory } => {
                let (needed, have) = (needed.div_ceil(1 << 20), memory >> 10);
                write!(f, "too little memory: expected mem={needed}M or more, the guest has {have}K")
            }
            Self::OutOfReach { start, end } => {
                let last = end.saturating_sub(1);
                write!(
                    f,
                    "the image wants {start:#x}-{last:#x}: expected physical addresses below 3G, where RAM can be"
                )
            }
            Self::Entry { address } => {
                write!(f, "the entry point {address:#x} lies outside the image: expected it in a loaded segment")
            }
            Self::FlatModules => {
                write!(f, "a flat image cannot take modules: expected another format= or no of= module")
            }
            Self::Empty => write!(f, "the image is empty: expected at least one byte to load"),
            Self::Refused { start, bytes } => {
                write!(f, "{bytes} bytes at {start:#x} were refused: expected RAM there (an error of the hypervisor)")
            }
        }
    }
}

impl core::error::Error for LoadError {}
