//! The modules of Debian's kernels that a guest with disks needs: the kernel has neither a disk driver nor a file system built in.
//! They make a second initramfs, which is added only where there is a disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::initramfs::{self, DIRECTORY, TEXT};

/// Where the package has the modules, and where they are kept in a guest's folder.
pub(super) const FOLDER: &str = "lib/modules";

/// A module: its path without the extension, and the modules that it needs, last the first to be loaded.
type Module = (&'static str, &'static [&'static str]);

const MODULES: [Module; 16] = [
    ("drivers/scsi/scsi_common", &[]),
    ("drivers/scsi/scsi_mod", &["scsi_common"]),
    ("drivers/ata/libata", &["scsi_mod", "scsi_common"]),
    ("drivers/ata/ata_piix", &["libata", "scsi_mod", "scsi_common"]),
    ("crypto/crct10dif_common", &[]),
    ("lib/crc-t10dif", &["crct10dif_common"]),
    ("lib/crc64", &[]),
    ("lib/crc64-rocksoft", &["crc64"]),
    ("block/t10-pi", &["crc-t10dif", "crct10dif_common", "crc64-rocksoft", "crc64"]),
    (
        "drivers/scsi/sd_mod",
        &["t10-pi", "crc-t10dif", "crct10dif_common", "crc64-rocksoft", "crc64", "scsi_mod", "scsi_common"],
    ),
    ("crypto/crc32c_generic", &[]),
    ("lib/libcrc32c", &[]),
    ("lib/crc16", &[]),
    ("fs/mbcache", &[]),
    ("fs/jbd2/jbd2", &[]),
    ("fs/ext4/ext4", &["jbd2", "mbcache", "crc16"]),
];

/// What the kernel asks modprobe for, and the module that serves it.
const ALIASES: &str =
    "alias fs-ext4 ext4\nalias fs-ext3 ext4\nalias fs-ext2 ext4\nalias crypto-crc32c crc32c_generic\n";

/// The files of a kernel's package that are needed. `release` is the kernel's, as `uname -r` shows it.
pub(super) fn files(release: &str) -> Vec<String> {
    MODULES.iter().map(|(path, _)| format!("./{FOLDER}/{release}/kernel/{path}.ko")).collect()
}

/// Makes the archive in a guest's folder, from the modules there, and says where it is.
///
/// # Errors
/// If a file cannot be read or written.
pub(super) fn make(folder: &Path) -> anyhow::Result<PathBuf> {
    let all = folder.join(FOLDER);
    let entry = fs::read_dir(&all).and_then(|mut entries| entries.next().transpose());
    let entry = entry?.context("no modules: fetch the guest again (gnomon guests --again --fetch NAME)")?;
    let release = entry.file_name().to_string_lossy().into_owned();
    let mut archive = Vec::new();
    write(&mut archive, &release, |path| fs::read(entry.path().join("kernel").join(path)))?;
    initramfs::keep(&folder.join("drivers.cpio"), &archive)
}

fn write(archive: &mut Vec<u8>, release: &str, read: impl Fn(&str) -> io::Result<Vec<u8>>) -> io::Result<()> {
    let place = format!("{FOLDER}/{release}");
    for folder in ["lib", FOLDER, &place] {
        initramfs::add(archive, folder, DIRECTORY, b"")?;
    }
    for (path, _) in MODULES {
        let file = format!("{path}.ko");
        initramfs::add(archive, &format!("{place}/{}.ko", name(path)), TEXT, &read(&file)?)?;
    }
    initramfs::add(archive, &format!("{place}/modules.dep"), TEXT, dependencies().as_bytes())?;
    initramfs::add(archive, &format!("{place}/modules.alias"), TEXT, ALIASES.as_bytes())?;
    initramfs::end(archive)
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `modules.dep`.
fn dependencies() -> String {
    let line = |&(path, needs): &Module| {
        let needs: String = needs.iter().map(|need| format!(" {need}.ko")).collect();
        format!("{}.ko:{needs}\n", name(path))
    };
    MODULES.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_there() {
        let names: Vec<&str> = MODULES.iter().map(|(path, _)| name(path)).collect();
        assert!(MODULES.iter().flat_map(|(_, needs)| *needs).all(|need| names.contains(need)));
        for alias in ALIASES.lines() {
            assert!(names.contains(&alias.rsplit(' ').next().unwrap()), "{alias}");
        }
        assert!(dependencies().contains("libata.ko: scsi_mod.ko scsi_common.ko\n"));
        assert_eq!(files("6.1")[0], "./lib/modules/6.1/kernel/drivers/scsi/scsi_common.ko");
    }
}
