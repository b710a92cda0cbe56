//! Kernels from Debian's packages that are neither Linux nor ours, as `gnomon guests` fetches them: they come as far as they do
//! bare.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cpio::newc;
use gnomon_host::catalog;
use gnomon_host::guest::Guest;
use gnomon_host::image::Payload;
use gnomon_host::machine::Machine;
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::machine::{self, Host};
use crate::tool::Place;
use crate::trial;

const LIMIT: Duration = Duration::from_secs(200);

/// What GNU Mach prints on the way; the last line is its panic, since there is no Hurd.
const MACH: [&str; 5] = [
    "GNU Mach 1.8",
    "Probing PCI hardware.",
    "ncr53c8xx",
    "RTC time is 20",
    "bootstrap_create: No bootstrap code loaded with the kernel!",
];
const GRUB_PROMPT: &str = "grub> ";
/// A file on GRUB's disk.
const NOTE: &str = "this is a note on the disk";
/// The fleet, on the text screen.
const INVADERS: [&str; 1] = ["-*-           -*-"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("foreign::bare::qemu::gnumach", || reaches(Host::QemuGrub, "gnumach", true, &MACH)),
        trial("foreign::gnomon::qemu::gnumach", || reaches(Host::Qemu, "gnumach", false, &MACH)),
        trial("foreign::gnomon::qemu::grub-invaders", || reaches(Host::Qemu, "grub-invaders", false, &INVADERS)),
        trial("foreign::gnomon::qemu::grub", grub),
    ]
}

fn reaches(host: Host, name: &str, bare: bool, texts: &[&str]) -> anyhow::Result<()> {
    let guest = Guest::of(name, catalog::find(name)?);
    let guests = std::slice::from_ref(&guest);
    let (payload, memory) = if bare {
        (Payload::bare(&guest)?, guest.memory)
    } else {
        (Payload::gnomon(machine::kernel()?, "log=info".into(), guests), gnomon_host::run::host_memory(guests))
    };
    let machine = Machine { timeout: Some(LIMIT), ..host.machine(memory) };
    let last = texts.last().context("a guest prints something")?;
    let report = machine::guest_until(&machine, &payload, bare, last)?;
    let output = String::from_utf8_lossy(&report.output);
    let mut rest = &*output;
    for text in texts {
        let found = rest.split_once(text);
        ensure!(found.is_some(), "expected `{text}`\n{}", report.tail());
        rest = found.map_or("", |(_, rest)| rest);
    }
    Ok(())
}

/// GRUB finds its disk, reads a file of the archive on it, loads a kernel by the multiboot protocol from there, and starts it.
fn grub() -> anyhow::Result<()> {
    let place = Place::new()?;
    let kernel = fs::read(catalog::find("timer")?.kernel)?;
    let image = place.file("disk.img", &archive(&[("note", NOTE.as_bytes()), ("timer", &kernel)])?)?;
    let guest = Guest::parse(&format!("kernel=grub disk={image}"), &mut catalog::find)?;
    let guests = std::slice::from_ref(&guest);
    let payload = Payload::gnomon(machine::kernel()?, "log=info".into(), guests);
    let memory = gnomon_host::run::host_memory(guests);
    let machine = Machine { icount: false, timeout: Some(LIMIT), ..Host::Qemu.machine(memory) };
    let lines: [&[u8]; 3] = [b"cat (ata0)/note\r", b"multiboot (ata0)/timer\r", b"boot\r"];
    let report = machine::converse(&machine, &payload, false, &lines.map(|line| (GRUB_PROMPT, line)))?;
    let output = String::from_utf8_lossy(&report.output);
    let judge = || {
        ensure!(output.contains(NOTE), "expected the file's text");
        ensure!(output.contains("ok 1 - ") && output.contains("# status 0"), "expected the kernel's results");
        ensure!(report.status == Status::Ok, "expected status 0");
        Ok(())
    };
    judge().with_context(|| report.tail())
}

/// A disk image that is an archive.
fn archive(files: &[(&str, &[u8])]) -> anyhow::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (name, content) in files {
        let entry = newc::Builder::new(name).mode(0o100_644);
        let mut writer = entry.write(&mut archive, u32::try_from(content.len())?);
        writer.write_all(content)?;
        writer.finish()?;
    }
    newc::trailer(&mut archive)?;
    archive.resize(archive.len().next_multiple_of(512), 0);
    Ok(archive)
}
