//! Kernels from Debian's packages that are neither Linux nor ours, as `gnomon guests` fetches them: they come as far as they do
//! bare.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cpio::newc;
use gnomon_host::catalog;
use gnomon_host::guest::Guest;
use gnomon_host::machine::Machine;
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::backends::{Under, WAYS};
use crate::machine::{self, Host};
use crate::tool::Place;
use crate::{slow_ones, trial};

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
/// What Memtest86+ shows once it tests; its clock goes on.
const MEMTEST: [&str; 3] = ["Memtest86+ v", "Errors: 0", "Time:  0:00:02"];
/// The fleet, on the text screen.
const INVADERS: [&str; 1] = ["-*-           -*-"];

pub(crate) fn trials() -> Vec<Trial> {
    let deprivileged = Under::Gnomon(None);
    let slow = slow_ones();
    let mut trials = vec![
        trial("foreign::bare::qemu::gnumach", || reaches(Host::QemuGrub, "gnumach", Under::Bare, &MACH)),
        trial("foreign::gnomon::qemu::gnumach", move || reaches(Host::Qemu, "gnumach", deprivileged, &MACH)),
        trial("foreign::gnomon::qemu::grub-invaders", move || {
            reaches(Host::Qemu, "grub-invaders", deprivileged, &INVADERS)
        }),
        trial("foreign::gnomon::qemu::grub", move || grub(deprivileged)),
        trial("foreign::gnomon::qemu::memtest", move || memtest(deprivileged)),
        trial("foreign::gnomon::qemu::linux-and-mach", move || linux_and_mach(deprivileged)),
    ];
    for way in WAYS.into_iter().filter(|way| way.host == Host::Qemu) {
        let under = Under::Hardware(way);
        let mut add = |name: &str, test: fn(Under) -> anyhow::Result<()>| {
            trials.push(trial(format!("foreign::{}::{name}", way.name()), move || test(under)));
        };
        add("gnumach", |under| reaches(Host::Qemu, "gnumach", under, &MACH));
        add("grub", grub);
        add("memtest", memtest);
        if slow {
            add("linux-and-mach", linux_and_mach);
        }
    }
    trials
}

fn reaches(host: Host, name: &str, under: Under, texts: &[&str]) -> anyhow::Result<()> {
    let (payload, memory) = under.payload(&[under.guest(name)?])?;
    let machine = Machine { timeout: Some(LIMIT), ..host.machine(memory) };
    let last = texts.last().context("a guest prints something")?;
    let report = machine::guest_until(&machine, &payload, under == Under::Bare, last)?;
    let output = String::from_utf8_lossy(&report.output);
    let mut rest = &*output;
    for text in texts {
        let found = rest.split_once(text);
        ensure!(found.is_some(), "expected `{text}`\n{}", report.tail());
        rest = found.map_or("", |(_, rest)| rest);
    }
    Ok(())
}

/// Its clock is the real one: two seconds of one that counts instructions are minutes.
fn memtest(under: Under) -> anyhow::Result<()> {
    reaches(Host::QemuGrub, "memtest86plus", under, &MEMTEST)
}

/// GRUB finds its disk, reads a file of the archive on it, loads a kernel by the multiboot protocol from there, and starts it.
fn grub(under: Under) -> anyhow::Result<()> {
    let place = Place::new()?;
    let kernel = fs::read(catalog::find("timer")?.kernel)?;
    let image = place.file("disk.img", &archive(&[("note", NOTE.as_bytes()), ("timer", &kernel)])?)?;
    let guest = Guest::parse(&format!("kernel=grub disk={image}"), &mut catalog::find)?;
    let (payload, memory) = under.payload(&[under.with_words(guest)])?;
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

/// Two systems at once on one machine, each with its own lines on the console; the first one has the keyboard.
fn linux_and_mach(under: Under) -> anyhow::Result<()> {
    let (payload, memory) = under.payload(&[under.guest("debian-686")?, under.guest("gnumach")?])?;
    let machine = Machine { icount: false, timeout: Some(LIMIT), ..Host::Qemu.machine(memory) };
    let script: [(&str, &[u8]); 2] = [("debian-686| debian# ", b"uname -a\n"), ("debian# ", b"poweroff\n")];
    let report = machine::converse(&machine, &payload, false, &script)?;
    let output = String::from_utf8_lossy(&report.output);
    for text in ["debian-686| Linux debian 6.", "reboot: Power down", "gnumach| GNU Mach 1.8", MACH[4]] {
        ensure!(output.contains(text), "expected `{text}`\n{}", report.tail());
    }
    Ok(())
}
