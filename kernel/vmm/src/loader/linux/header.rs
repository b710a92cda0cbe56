//! The setup header of a bzImage.

use super::error::LinuxError;
use crate::loader::error::LoadError;
use crate::loader::layout::HIGH_START;
use crate::loader::word;

/// Where the header begins, in the file and in the boot parameters.
pub(super) const START: usize = 0x1F1;
/// Where it must end in the boot parameters: the next field begins here.
pub(super) const LIMIT: usize = 0x290;

// Offsets of its fields.
const SETUP_SECTS: usize = 0x1F1;
const SYSSIZE: usize = 0x1F4;
const BOOT_FLAG: usize = 0x1FE;
/// The second byte of the jump at 0x200: the header ends this many bytes behind it.
const JUMP_DISTANCE: usize = 0x201;
const SIGNATURE: usize = 0x202;
const VERSION: usize = 0x206;
const LOADFLAGS: usize = 0x211;
const INITRD_ADDR_MAX: usize = 0x22C;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE_KERNEL: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;

const BOOT_SIGNATURE: u16 = 0xAA55;
const SECTOR: usize = 512;
/// What `setup_sects` 0 means.
const DEFAULT_SETUP_SECTORS: usize = 4;
/// A syssize unit.
const PARAGRAPH: usize = 16;
/// `loadflags`: the protected-mode part belongs at 1 MiB.
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: the kernel has a 64-bit entry, so it is a 64-bit kernel.
const KERNEL_64: u16 = 1 << 0;
/// The oldest protocol with the command line where it is now.
const OLDEST: u16 = 0x0202;

/// A Linux image whose header can be served. Fields that its protocol version lacks have the values that the protocol
/// names for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetupHeader<'a> {
    image: &'a [u8],
    pub(super) version: u16,
}

impl<'a> SetupHeader<'a> {
    /// Finds the header of `image` and checks what kind of kernel it is.
    pub(super) fn find(image: &'a [u8]) -> Result<Self, LoadError> {
        let signed = image.get(SIGNATURE..).is_some_and(|rest| rest.starts_with(b"HdrS"));
        if !signed || half(image, BOOT_FLAG) != Some(BOOT_SIGNATURE) {
            return Err(LoadError::NotLinux);
        }
        let version = half(image, VERSION).ok_or(LoadError::NotLinux)?;
        let header = Self { image, version };
        if version < OLDEST {
            return Err(LoadError::Linux(LinuxError::Protocol { version }));
        }
        if header.byte(LOADFLAGS) & LOADED_HIGH == 0 {
            return Err(LoadError::Linux(LinuxError::Low));
        }
        if version >= 0x020C && half(image, XLOADFLAGS).is_some_and(|flags| flags & KERNEL_64 != 0) {
            return Err(LoadError::Linux(LinuxError::Bits64));
        }
        Ok(header)
    }

    /// The bytes of the header, from [`START`], as far as they have a place in the boot parameters.
    pub(super) fn bytes(&self) -> &'a [u8] {
        let end = SIGNATURE.saturating_add(self.byte(JUMP_DISTANCE).into()).min(LIMIT).min(self.image.len());
        self.image.get(START..end).unwrap_or(&[])
    }

    /// The protected-mode part: what is loaded.
    pub(super) fn kernel(&self) -> Result<&'a [u8], LoadError> {
        let sectors = match self.byte(SETUP_SECTS) {
            0 => DEFAULT_SETUP_SECTORS,
            sectors => sectors.into(),
        };
        let rest = self.image.get((sectors + 1) * SECTOR..).unwrap_or(&[]);
        // Signatures may follow. The field counted in 16 bits before 2.04, too few for what boots today.
        let counted = if self.version >= 0x0204 { self.word(SYSSIZE) as usize } else { 0 };
        let bytes = match counted.saturating_mul(PARAGRAPH) {
            0 => rest.len(),
            // The last paragraph of the file may not be whole.
            bytes if bytes.saturating_sub(rest.len()) < PARAGRAPH => bytes.min(rest.len()),
            _ => return Err(LoadError::Linux(LinuxError::Cut)),
        };
        match rest.get(..bytes) {
            Some(kernel) if !kernel.is_empty() => Ok(kernel),
            _ => Err(LoadError::Linux(LinuxError::Cut)),
        }
    }

    /// How many bytes the kernel wants to itself from its load address on.
    pub(super) fn init_size(&self) -> u64 {
        if self.version >= 0x020A { self.word(INIT_SIZE).into() } else { 0 }
    }

    /// Where the kernel wants to be.
    pub(super) fn preferred_address(&self) -> u64 {
        if self.version < 0x020A || self.relocation().is_none() {
            return HIGH_START;
        }
        u64::from(self.word(PREF_ADDRESS + 4)) << 32 | u64::from(self.word(PREF_ADDRESS))
    }

    /// To a multiple of what the kernel may be moved, or `None` if it may not.
    pub(super) fn relocation(&self) -> Option<u64> {
        let relocatable = self.version >= 0x0205 && self.byte(RELOCATABLE_KERNEL) != 0;
        let align = u64::from(self.word(KERNEL_ALIGNMENT));
        (relocatable && align.is_power_of_two()).then_some(align)
    }

    /// The end (exclusive) of what an initrd may take.
    pub(super) fn initrd_end(&self) -> u64 {
        let last = if self.version >= 0x0203 { self.word(INITRD_ADDR_MAX) } else { 0x37FF_FFFF };
        u64::from(last).saturating_add(1)
    }

    /// How many bytes a command line may have, without its final zero.
    pub(super) fn longest_command_line(&self) -> u64 {
        if self.version >= 0x0206 { self.word(CMDLINE_SIZE).into() } else { 255 }
    }

    fn byte(&self, offset: usize) -> u8 {
        self.image.get(offset).copied().unwrap_or(0)
    }

    fn word(&self, offset: usize) -> u32 {
        word(self.image, offset).unwrap_or(0)
    }
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
}
