//! The root file system of ready Linux guests, made on the spot: busybox, which is its own init, and three text files.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cpio::newc;

/// What the shell prints when it waits for a command.
pub(super) const PROMPT: &str = "debian# ";

pub(super) const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
pub(super) const TEXT: u32 = 0o100_644;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// Major and minor number of /dev/console.
const CONSOLE: (u32, u32) = (5, 1);

const FOLDERS: [&str; 9] = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr"];
/// The kernel starts /init, which is busybox' init; /bin/sh is there before the other names are.
const LINKS: [(&str, &str); 3] = [("init", "bin/busybox"), ("bin/sh", "busybox"), ("sbin", "bin")];

/// `cttyhack` gives the shell the console as its controlling terminal, so that Ctrl-C works.
const INITTAB: &str = "\
::sysinit:/etc/rc
::respawn:/bin/cttyhack /bin/sh -l
::ctrlaltdel:/bin/reboot
::shutdown:/bin/sync
";

const RC: &str = "\
#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
hostname debian
ifconfig lo 127.0.0.1
echo
echo 'The kernel is as Debian ships it, the shell is busybox. poweroff ends the machine.'
# With a disk there are drivers; it takes a moment until it is there.
if modprobe ata_piix 2>/dev/null && modprobe sd_mod; then
  tries=100
  while [ ! -e /dev/sda ] && [ $tries -gt 0 ]; do tries=$((tries - 1)); sleep 0.1; done
fi
";

fn profile() -> String {
    // Without a size busybox asks the terminal for it at every prompt.
    format!("stty rows 24 cols 80\nexport PATH=/bin TERM=vt100 HOME=/root PS1='{PROMPT}'\ncd /root\n")
}

/// Makes the archive in a guest's folder, from the busybox there, and says where it is.
///
/// # Errors
/// If a file cannot be read or written.
pub(super) fn make(folder: &Path) -> anyhow::Result<PathBuf> {
    let busybox = fs::read(folder.join("busybox")).context("busybox: fetch the guest again")?;
    let mut archive = Vec::new();
    write(&mut archive, &busybox)?;
    keep(&folder.join("initramfs.cpio"), &archive)
}

/// Writes an archive to its file, if it is not there already.
pub(super) fn keep(path: &Path, archive: &[u8]) -> anyhow::Result<PathBuf> {
    if fs::read(path).is_ok_and(|there| there == archive) {
        return Ok(path.to_owned());
    }
    // Other runs may be reading the one that is there.
    let folder = path.parent().context("an archive has a folder")?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(archive)?;
    new.persist(path)?;
    Ok(path.to_owned())
}

/// An archive of one text file. As a second initial RAM disk it replaces the file of that name.
///
/// # Errors
/// If there is no memory for it.
pub fn archive_of(name: &str, content: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    add(&mut archive, name, TEXT, content)?;
    newc::trailer(&mut archive)?;
    Ok(archive)
}

/// Not compressed: the guest need not unpack it, and the host has it in its cache anyway.
fn write(archive: &mut Vec<u8>, busybox: &[u8]) -> io::Result<()> {
    for name in FOLDERS {
        add(archive, name, DIRECTORY, b"")?;
    }
    let console = newc::Builder::new("dev/console").mode(CHARACTER_DEVICE);
    append(archive, console.rdev_major(CONSOLE.0).rdev_minor(CONSOLE.1), b"")?;
    add(archive, "bin/busybox", PROGRAM, busybox)?;
    for (name, target) in LINKS {
        add(archive, name, LINK, target.as_bytes())?;
    }
    add(archive, "etc/inittab", TEXT, INITTAB.as_bytes())?;
    add(archive, "etc/rc", PROGRAM, RC.as_bytes())?;
    add(archive, "etc/profile", TEXT, profile().as_bytes())?;
    end(archive)
}

/// Adds a file, a folder or a link.
pub(super) fn add(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    append(archive, newc::Builder::new(name).mode(mode), content)
}

fn append(archive: &mut Vec<u8>, entry: newc::Builder, content: &[u8]) -> io::Result<()> {
    let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut writer = entry.write(archive, size);
    writer.write_all(content)?;
    writer.finish().map(drop)
}

/// Ends the archive.
pub(super) fn end(archive: &mut Vec<u8>) -> io::Result<()> {
    newc::trailer(archive).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_holds_what_init_needs() {
        let mut archive = Vec::new();
        write(&mut archive, b"program").unwrap();
        let (mut rest, mut names) = (&archive[..], Vec::new());
        loop {
            let mut entry = newc::Reader::new(rest).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
            let mut content = Vec::new();
            io::Read::read_to_end(&mut entry, &mut content).unwrap();
            if name == "bin/busybox" {
                assert_eq!((mode, &content[..]), (PROGRAM, &b"program"[..]));
            }
            names.push(name);
            rest = entry.finish().unwrap();
        }
        for wanted in ["init", "bin/sh", "etc/inittab", "etc/rc", "etc/profile", "dev/console", "proc"] {
            assert!(names.iter().any(|name| name == wanted), "{wanted} in {names:?}");
        }
    }
}
