//! Which boot protocol a kernel image asks for.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

/// The protocol by which a kernel is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Multiboot1, and whatever is not known.
    Multiboot1,
    /// Multiboot2, which QEMU's own loader does not know.
    Multiboot2,
    /// Gnomon: multiboot2 by GRUB, multiboot1 by QEMU.
    Gnomon,
    /// A Linux bzImage.
    Linux,
    /// An ELF file with a PVH note, which QEMU alone can boot.
    Pvh,
}

/// The headers of all protocols lie in this many first bytes.
const HEAD: u64 = 32768;

/// Multiboot1: magic number, area and alignment. Multiboot2 likewise.
const MULTIBOOT1: (u32, usize, usize) = (0x1BAD_B002, 8192, 4);
const MULTIBOOT2: (u32, usize, usize) = (0xE852_50D6, 32768, 8);

/// The protocol that `kernel` asks for, in the order in which the hypervisor prefers them.
///
/// # Errors
/// If the file cannot be read.
pub fn protocol_of(kernel: &Path) -> anyhow::Result<Protocol> {
    let file = File::open(kernel).with_context(|| kernel.display().to_string())?;
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head)?;
    Ok(of_head(&head))
}

fn of_head(head: &[u8]) -> Protocol {
    let linux = head.get(0x1FE..0x200) == Some(&[0x55, 0xAA]) && head.get(0x202..0x206) == Some(b"HdrS");
    // The note's header: lengths of owner and content, type 18, owner.
    let note = |words: &[u8]| words.starts_with(&[4, 0, 0, 0]) && words.get(8..16) == Some(b"\x12\0\0\0Xen\0");
    if linux {
        Protocol::Linux
    } else if has_magic(head, MULTIBOOT1) {
        Protocol::Multiboot1
    } else if has_magic(head, MULTIBOOT2) {
        Protocol::Multiboot2
    } else if head.starts_with(b"\x7fELF") && head.chunks(4).enumerate().any(|(index, _)| note(&head[4 * index..])) {
        Protocol::Pvh
    } else {
        Protocol::Multiboot1
    }
}

fn has_magic(head: &[u8], (magic, area, align): (u32, usize, usize)) -> bool {
    let area = &head[..area.min(head.len())];
    area.chunks(align).any(|place| place.starts_with(&magic.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_known_by_its_header() {
        let with = |offset: usize, bytes: &[u8]| {
            let mut head = vec![0; 0x8000];
            head[..4].copy_from_slice(b"\x7fELF");
            head[offset..offset + bytes.len()].copy_from_slice(bytes);
            of_head(&head)
        };
        assert_eq!(with(0x1FE, b"\x55\xaa\xeb\x66HdrS"), Protocol::Linux);
        assert_eq!(with(0x1004, &0x1BAD_B002_u32.to_le_bytes()), Protocol::Multiboot1);
        assert_eq!(with(0x4008, &0xE852_50D6_u32.to_le_bytes()), Protocol::Multiboot2);
        assert_eq!(with(0x4004, &0xE852_50D6_u32.to_le_bytes()), Protocol::Multiboot1, "not at a multiple of 8");
        assert_eq!(with(0x204, b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0"), Protocol::Pvh);
        assert_eq!(of_head(b""), Protocol::Multiboot1);
    }
}
