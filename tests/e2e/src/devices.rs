//! What the virtual PC has to do with the outside: its screen, its disks' images, its power.

use std::fs;

use anyhow::ensure;
use libtest_mimic::Trial;

use crate::compare;
use crate::tool::Place;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for machine in ["qemu", "bochs"] {
        trials.push(trial(format!("devices::power-off::{machine}"), move || power_off(machine)));
        trials.push(trial(format!("devices::screen::{machine}"), move || screen(machine)));
        trials.push(trial(format!("devices::disk::{machine}"), move || disk(machine)));
    }
    for (name, words) in [("depriv", [""; 0].as_slice()), ("svm", &["--backend", "svm"])] {
        trials.push(trial(format!("devices::entry::{name}"), move || entry(words)));
    }
    trials
}

/// `mov $0x604, %edx; mov $0x2000, %eax; out %ax, %dx; cli; hlt`
const POWER_OFF: [u8; 14] = [0xba, 0x04, 0x06, 0, 0, 0xb8, 0x00, 0x20, 0, 0, 0x66, 0xef, 0xfa, 0xf4];
/// `movl $0x07690748, 0xb8000`: "Hi", light grey.
const HI: [u8; 10] = [0xc7, 0x05, 0x00, 0x80, 0x0b, 0x00, 0x48, 0x07, 0x69, 0x07];

/// Ends with a status made of SS, DS and CS, a byte each.
const SELECTORS: [u8; 22] = [
    0x8c, 0xc8, 0x8c, 0xd9, 0x8c, 0xd2, // mov %cs, %eax; mov %ds, %ecx; mov %ss, %edx
    0xc1, 0xe1, 8, 0xc1, 0xe2, 16, // shl $8, %ecx; shl $16, %edx
    0x09, 0xc8, 0x09, 0xd0, // or %ecx, %eax; or %edx, %eax
    0xba, 0xf4, 0, 0, 0, 0xef, // mov $0xf4, %edx; out %eax, %dx
];

/// The guest begins with the selectors that QEMU leaves, which kernels keep until they load their own.
fn entry(words: &[&str]) -> anyhow::Result<()> {
    let place = Place::new()?;
    let guest = place.flat("entry", &SELECTORS)?;
    let status = 0x10 << 16 | 0x10 << 8 | 8;
    let arguments = [&["run", "--timeout", "60", "--guest", &guest], words].concat();
    place.expect(&arguments, 1, &[&format!("ended with status {status}")])
}

fn power_off(machine: &str) -> anyhow::Result<()> {
    let place = Place::new()?;
    let guest = place.flat("off", &POWER_OFF)?;
    place.expect(&["run", "--machine", machine, "--timeout", "60", "--guest", &guest], 0, &["guest off: powered off"])
}

fn screen(machine: &str) -> anyhow::Result<()> {
    let place = Place::new()?;
    let guest = place.flat("hi", &[&HI[..], &POWER_OFF].concat())?;
    let output = place.run(&["run", "--machine", machine, "--timeout", "60", "--guest", &guest])?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(printed == "Hi\n", "expected the text screen's line, found {printed:?}");
    let guest = format!("{guest} console=serial");
    let output = place.run(&["run", "--machine", machine, "--timeout", "60", "--guest", &guest])?;
    ensure!(output.stdout.is_empty(), "expected nothing: the console is the serial port");
    Ok(())
}

/// The guest `ide` finds the disk in order; the image changes only if that was asked for.
fn disk(machine: &str) -> anyhow::Result<()> {
    const SECTORS: usize = 100;
    /// What the guest leaves in sectors 30 and 31: doublewords that count from here.
    const WRITTEN: u32 = 0x2222_0000;
    let place = Place::new()?;
    let image = place.file("disk.img", &[0xee; SECTORS * 512])?;
    let common = ["run", "ide", "--machine", machine, "--timeout", "120", "--disk", &image];
    let output = place.run(&common)?;
    compare::tap(&output.stdout)?;
    ensure!(output.status.success(), "expected status 0, found {}", output.status);
    ensure!(fs::read(&image)? == [0xee; SECTORS * 512], "the image changed, and nobody had asked for it");
    let output = place.run(&[&common[..], &["--keep-writes"]].concat())?;
    ensure!(output.status.success(), "expected status 0, found {}", output.status);
    let bytes = fs::read(&image)?;
    ensure!(bytes.len() == SECTORS * 512, "the image has another size");
    let expected: Vec<u8> = (WRITTEN..).take(6 * 128).flat_map(u32::to_le_bytes).collect();
    ensure!(bytes[30 * 512..36 * 512] == expected, "what the guest wrote is not in the image");
    ensure!(bytes[..10 * 512].iter().all(|&byte| byte == 0xee), "sectors changed that the guest had not written");
    Ok(())
}
