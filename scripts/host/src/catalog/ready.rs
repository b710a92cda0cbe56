//! Ready guests: kernels as Debian ships them, kept in the user's cache folder.
//!
//! ```text
//!   $XDG_CACHE_HOME/gnomon/     (or ~/.cache/gnomon/)
//!     apt/                      apt's own state, apart from the system's
//!     guests/NAME/kernel        the kernel image
//!     guests/NAME/busybox       the only program of a Linux guest
//!     guests/NAME/lib/modules   its drivers for disks
//!     guests/NAME/package       name and version of what it came from
//! ```

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{apt, drivers, grub, initramfs};
use crate::guest::Found;
use crate::progress;
use crate::status::Failed;

/// A guest that can be fetched.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// Memory in bytes.
    pub(super) memory: u64,
    /// The kernel's arguments.
    pub(super) arguments: &'static str,
    /// What it prints when it is ready for input.
    ready: Option<&'static str>,
    package: Package,
}

/// Where the kernel comes from.
#[derive(Debug)]
enum Package {
    /// A package that depends on the kernel of the day; with a busybox shell.
    Linux(&'static str),
    /// This file of this package.
    File(&'static str, &'static str),
    /// GRUB as coreboot's payload, made from the modules in its package.
    Grub,
}

/// The guests' processors are 32-bit ones.
const ARCHITECTURE: &str = "i386";

/// All ready guests.
pub(super) const GUESTS: [Ready; 6] = [
    Ready {
        name: "debian-686",
        description: "Debian's kernel for the 686 (2-level paging), with a busybox shell on the console",
        memory: 128 << 20,
        arguments: "console=ttyS0",
        ready: Some(initramfs::PROMPT),
        package: Package::Linux("linux-image-686"),
    },
    Ready {
        name: "debian-686-pae",
        description: "Debian's kernel for the 686 with PAE and NX, with a busybox shell on the console",
        memory: 128 << 20,
        arguments: "console=ttyS0",
        ready: Some(initramfs::PROMPT),
        package: Package::Linux("linux-image-686-pae"),
    },
    Ready {
        name: "memtest86plus",
        description: "Memtest86+, which tests its memory until it is stopped",
        memory: 8 << 20,
        arguments: "console=ttyS0,115200",
        ready: None,
        package: Package::File("memtest86+", "./boot/memtest86+ia32.bin"),
    },
    Ready {
        name: "gnumach",
        description: "GNU Mach, the Hurd's microkernel, up to the point where it wants a Hurd",
        memory: 64 << 20,
        arguments: "console=com0",
        ready: None,
        package: Package::File("gnumach-image-1.8-486", "./boot/gnumach-1.8-486.gz"),
    },
    Ready {
        name: "grub-invaders",
        description: "a game for the bare machine, on the text screen: run it with --console screen",
        memory: 32 << 20,
        arguments: "",
        ready: None,
        package: Package::File("grub-invaders", "./boot/invaders.exec"),
    },
    Ready {
        name: "grub",
        description: "GRUB as coreboot's payload: a shell that reads the disk (ata0) and boots from it",
        memory: 64 << 20,
        arguments: "",
        ready: Some(grub::PROMPT),
        package: Package::Grub,
    },
];

/// The ready guest of this name.
pub(super) fn by_name(name: &str) -> Option<&'static Ready> {
    const { &GUESTS }.iter().find(|guest| guest.name == name)
}

/// The folder for everything that is fetched.
///
/// # Errors
/// If neither `XDG_CACHE_HOME` nor `HOME` says where it is.
fn cache() -> anyhow::Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    let base = base.ok_or_else(|| Failed::usage("expected HOME or XDG_CACHE_HOME to say where fetched guests go"))?;
    Ok(base.join("gnomon"))
}

impl Ready {
    fn folder(&self) -> anyhow::Result<PathBuf> {
        Ok(cache()?.join("guests").join(self.name))
    }

    /// Whether it is there, for people.
    pub(super) fn state(&self) -> String {
        let folder = self.folder().ok().filter(|folder| folder.join("kernel").is_file());
        let Some(folder) = folder else { return "not fetched yet".into() };
        let package = fs::read_to_string(folder.join("package")).unwrap_or_default();
        format!("{} in {}", package.trim(), folder.display())
    }

    /// Removes it from the cache.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(self.folder()?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The guest's files, fetched if they are not there.
    pub(super) fn find(&self) -> anyhow::Result<Found> {
        let folder = self.folder()?;
        if !self.is_whole(&folder) {
            let _alone = lock(&cache()?)?;
            // Somebody else may have fetched it in the meantime.
            if !self.is_whole(&folder) {
                self.fetch(&folder)?;
            }
        }
        let (modules, drivers) = match self.package {
            Package::Linux(_) => (vec![initramfs::make(&folder)?], Some(drivers::make(&folder)?)),
            Package::File(..) | Package::Grub => (Vec::new(), None),
        };
        Ok(Found {
            kernel: folder.join("kernel"),
            modules,
            drivers,
            arguments: self.arguments.to_owned(),
            memory: self.memory,
            ready: self.ready.map(str::to_owned),
        })
    }

    /// Whether everything is there; a folder that an older version of this tool made may lack something.
    fn is_whole(&self, folder: &Path) -> bool {
        let drivers = !matches!(self.package, Package::Linux(_)) || folder.join(drivers::FOLDER).is_dir();
        drivers && folder.join("kernel").is_file()
    }

    /// Fetches into a folder beside, and moves it to its place when it is whole.
    fn fetch(&self, folder: &Path) -> anyhow::Result<()> {
        let parent = folder.parent().context("a guest's folder has a parent")?;
        fs::create_dir_all(parent)?;
        let new = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
        progress::note(&format!("{} goes to {}", self.name, folder.display()));
        let apt = apt::Apt::new(&cache()?.join("apt"), ARCHITECTURE)?;
        let package = match self.package {
            Package::Linux(name) => {
                let kernel = apt.dependency(name, "linux-image-")?;
                let package = apt.fetch(&kernel)?;
                let release = kernel.trim_start_matches("linux-image-");
                package.extract(&format!("./boot/vmlinuz-{release}"), &new.path().join("kernel"))?;
                package.unpack(&drivers::files(release), new.path())?;
                apt.fetch("busybox-static")?.extract("./bin/busybox", &new.path().join("busybox"))?;
                package
            }
            Package::Grub => {
                let package = apt.fetch(grub::PACKAGE)?;
                package.unpack(&[grub::MODULES.to_owned()], new.path())?;
                grub::make(new.path(), &new.path().join("kernel"))?;
                package
            }
            Package::File(name, file) => {
                let package = apt.fetch(name)?;
                package.extract(file, &new.path().join("kernel"))?;
                if file.ends_with(".gz") {
                    gunzip(&new.path().join("kernel"))?;
                }
                package
            }
        };
        fs::write(new.path().join("package"), format!("{}\n", package.name))?;
        let _ = fs::remove_dir_all(folder);
        fs::rename(new.keep(), folder).with_context(|| format!("cannot make {}", folder.display()))
    }
}

/// Unpacks a file in its place. GRUB does that when it loads a kernel; QEMU and Gnomon want it done.
fn gunzip(file: &Path) -> anyhow::Result<()> {
    let packed = fs::read(file)?;
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut unpacked)
        .with_context(|| format!("cannot unpack {}", file.display()))?;
    fs::write(file, unpacked).with_context(|| format!("cannot write {}", file.display()))
}

/// Waits until no other run fetches anything.
fn lock(folder: &Path) -> anyhow::Result<fs::File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = fs::File::create(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_those_of_other_guests() {
        for guest in &GUESTS {
            assert!(gnomon_guests::GUESTS.iter().all(|other| other.name != guest.name));
            assert_eq!(by_name(guest.name).map(|found| found.name), Some(guest.name));
        }
        assert!(by_name("nobody").is_none());
    }
}
