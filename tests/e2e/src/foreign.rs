//! Kernels from Debian's packages that are neither Linux nor ours, as `gnomon guests` fetches them: they come as far as they do
//! bare.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gnomon_host::catalog;
use gnomon_host::guest::Guest;
use gnomon_host::image::Payload;
use gnomon_host::machine::Machine;
use libtest_mimic::Trial;

use crate::machine::{self, Host};
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
/// The fleet, on the text screen.
const INVADERS: [&str; 1] = ["-*-           -*-"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("foreign::bare::qemu::gnumach", || reaches(Host::QemuGrub, "gnumach", true, &MACH)),
        trial("foreign::gnomon::qemu::gnumach", || reaches(Host::Qemu, "gnumach", false, &MACH)),
        trial("foreign::gnomon::qemu::grub-invaders", || reaches(Host::Qemu, "grub-invaders", false, &INVADERS)),
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
