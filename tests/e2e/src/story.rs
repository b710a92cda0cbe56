//! The demo tells its story, from the records of its own run.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use gnomon_guests::{GUESTS, Kind};
use gnomon_host::workspace;
use libtest_mimic::Trial;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    if !GUESTS.iter().any(|guest| guest.kind == Kind::Demo) {
        return Vec::new();
    }
    vec![
        trial("demo::qemu", || told("qemu").map(drop)),
        trial("demo::bochs", || told("bochs").map(drop)),
        trial("demo::reproducible", reproducible),
    ]
}

/// What the story must tell, in this order.
const PARTS: [&str; 10] = [
    "user: malloc: a freed block is used again",
    "Before: the guest boots",
    "The process runs, up to brk",
    "INT 0x80 in brk",
    "switches the guest from ring 3 to ring 1",
    "The kernel writes a page-table entry in map_page",
    "The kernel returns by IRET",
    "in malloc, for the first time",
    "shadow L1 at HPA 0x",
    "From the call to the page",
];

/// Runs the demo and checks its story.
fn told(machine: &str) -> anyhow::Result<String> {
    let mut command = Command::new(workspace::root().join("scripts/gnomon"));
    command.args(["demo", "--machine", machine]).env("GNOMON_NO_INSTALL", "1").stdin(Stdio::null());
    let output = command.output().context("cannot run scripts/gnomon")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "gnomon demo: {}\n{said}", output.status);
    let story = String::from_utf8(output.stdout)?;
    let mut rest = story.as_str();
    for part in PARTS {
        let at = rest.find(part).with_context(|| format!("`{part}` is missing or out of order in\n{story}"))?;
        rest = &rest[at..];
    }
    Ok(story)
}

/// With instructions as clock, two runs do not differ in a single one.
fn reproducible() -> anyhow::Result<()> {
    let (first, second) = (told("qemu")?, told("qemu")?);
    crate::compare::same(first.as_bytes(), second.as_bytes())
}
