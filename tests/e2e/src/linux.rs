//! Debian's 686 kernels with a busybox shell, as `gnomon guests` fetches them: commands are typed at the prompt, and what they
//! print is judged, bare and under every back end.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gnomon_host::catalog;
use gnomon_host::cli::MmuName;
use gnomon_host::guest::Guest;
use gnomon_host::machine::Machine;
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::backends::{Under, WAYS, Way};
use crate::machine::{self, Host};
use crate::tool::Place;
use crate::{slow_ones, trial};

const GUESTS: [&str; 2] = ["debian-686", "debian-686-pae"];
/// Other ways to shadow its tables, with every switch once as it is not by default.
const POLICIES: [&str; 3] = [
    "vtlb,prefetch=8",
    "unsync,absent=on,roots=4,teardown=8,patience=2,huge=on",
    "vtlb,global=off,eager=off,reuse=off,flood=0",
];
const PROMPT: &str = "debian# ";
/// A boot and all commands; a busy machine takes its time.
const LIMIT: Duration = Duration::from_secs(400);
/// The same on Bochs, where it takes some minutes of CPU time.
const LIMIT_ON_BOCHS: Duration = Duration::from_secs(3600);

/// Commands, and what must be among the lines that each prints. A command's own echo does not count.
const COMMANDS: [(&str, &[&str]); 10] = [
    ("uname -a", &["Linux debian 6.", "GNU/Linux"]),
    ("cat /proc/cpuinfo", &["processor", "model name", "bogomips"]),
    ("dmesg | head -3", &["Linux version 6."]),
    ("cat /proc/interrupts", &["timer", "ttyS0"]),
    ("i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done; echo ran $i", &["ran 500"]),
    (
        "dd if=/dev/zero of=/tmp/a bs=64k count=128 && dd if=/tmp/a of=/tmp/b bs=4k && cmp /tmp/a /tmp/b && echo same",
        &["same"],
    ),
    (
        "a=$(cut -d. -f1 /proc/uptime); sleep 3; b=$(cut -d. -f1 /proc/uptime); echo slept $((b-a)) | sed 's/[34]$/well/'",
        &["slept well"],
    ),
    ("ps", &["init", "kthreadd", "ps"]),
    ("top -b -n1 | head -5", &["Mem:", "Load average:"]),
    ("sort /proc/kallsyms | md5sum; echo $?", &["-", "0"]),
];

/// The same where a process takes a second or more.
const FEW_COMMANDS: [(&str, &[&str]); 4] = [
    ("uname -a", &["Linux debian 6.", "GNU/Linux"]),
    ("cat /proc/cpuinfo", &["processor", "model name", "bogomips"]),
    ("cat /proc/interrupts", &["timer", "ttyS0"]),
    ("i=0; while [ $i -lt 20 ]; do /bin/true; i=$((i+1)); done; echo ran $i", &["ran 20"]),
];

pub(crate) fn trials() -> Vec<Trial> {
    let pairs = GUESTS.into_iter().flat_map(|name| [(name, Under::Bare), (name, Under::Gnomon(None))]);
    let test = |(name, under)| {
        let word = if under == Under::Bare { "bare" } else { "gnomon" };
        trial(format!("linux::{word}::qemu::{name}"), move || commands(Host::Qemu, name, under, &COMMANDS))
    };
    let mut trials: Vec<Trial> = pairs.map(test).collect();
    trials.extend(POLICIES.map(|policy| {
        let test = move || commands(Host::Qemu, "debian-686", Under::Gnomon(Some(policy)), &COMMANDS);
        trial(format!("linux::gnomon::qemu::debian-686::{policy}"), test)
    }));
    let slow = slow_ones();
    trials.extend(WAYS.into_iter().flat_map(|way| on_hardware(way, slow)));
    // One is enough there, and only on request: it takes many minutes.
    let [name, _] = GUESTS;
    if slow {
        let test = move || commands(Host::Bochs, name, Under::Gnomon(None), &COMMANDS);
        trials.push(trial(format!("linux::gnomon::bochs::{name}"), test));
    }
    trials.push(trial("linux::gnomon::qemu::disk", disk));
    trials
}

/// The kernels under a hardware back end: in an ordinary run each once. On Bochs, where a boot takes minutes, only on request; a few
/// commands for one of them must do.
fn on_hardware(way: Way, slow: bool) -> Vec<Trial> {
    let [small, pae] = GUESTS;
    let bochs = way.host == Host::Bochs;
    let guests: &[&str] = match way.mmu {
        _ if bochs && !slow => &[],
        _ if slow => &GUESTS,
        MmuName::Nested => &[pae],
        MmuName::Shadow => &[small],
    };
    let test = |&name: &&'static str| {
        let lines = if bochs && name == small { &FEW_COMMANDS[..] } else { &COMMANDS[..] };
        trial(format!("linux::{}::{name}", way.name()), move || commands(way.host, name, Under::Hardware(way), lines))
    };
    guests.iter().map(test).collect()
}

fn commands(host: Host, name: &str, under: Under, lines: &[(&str, &[&str])]) -> anyhow::Result<()> {
    boot(host, &under.guest(name)?, under, lines)
}

/// The kernel finds the disk by PCI, its drivers come with it, and what is written reads back from the disk itself.
fn disk() -> anyhow::Result<()> {
    const LINES: usize = 4096;
    let place = Place::new()?;
    let text: String = (0..LINES).map(|n| format!("this is line {n:>10}\n")).collect();
    let image = place.file("disk.img", text.as_bytes())?;
    let guest = Guest::parse(&format!("kernel=debian-686 disk={image}"), &mut catalog::find)?;
    let (all, fewer) = (LINES.to_string(), (LINES - 512 / 24 - 1).to_string());
    let lines: [(&str, &[&str]); 4] = [
        ("grep -c 'this is line' /dev/sda", &[&all]),
        ("echo this was written > /tmp/a; dd if=/tmp/a of=/dev/sda seek=6 conv=sync,fsync", &["1+0 records out"]),
        ("echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/sda skip=6 count=1", &["this was written"]),
        ("grep -c 'this is line' /dev/sda", &[&fewer]),
    ];
    boot(Host::Qemu, &guest, Under::Gnomon(None), &lines)
}

/// Boots a guest, types commands, and looks for what must be among the lines that each prints.
fn boot(host: Host, guest: &Guest, under: Under, commands: &[(&str, &[&str])]) -> anyhow::Result<()> {
    let (payload, memory) = under.payload(std::slice::from_ref(guest))?;
    let bare = under == Under::Bare;
    // Its clock is the real one: a sleeping guest would count no instructions.
    let limit = if host == Host::Bochs { LIMIT_ON_BOCHS } else { LIMIT };
    let machine = Machine { icount: false, ips: None, timeout: Some(limit), ..host.machine(memory) };
    let lines: Vec<Vec<u8>> = commands.iter().map(|(line, _)| format!("{line}\n").into_bytes()).collect();
    let typed = lines.iter().map(Vec::as_slice).chain([&b"poweroff\n"[..]]);
    let script: Vec<(&str, &[u8])> = typed.map(|line| (PROMPT, line)).collect();
    let report = machine::converse(&machine, &payload, bare, &script)?;
    let output = String::from_utf8_lossy(&report.output).into_owned();
    let judge = || {
        let mut answers = output.split(PROMPT).skip(1);
        for (line, wanted) in commands {
            let answer = answers.next().with_context(|| format!("no answer to `{line}`"))?;
            let printed = answer.split_once('\n').map_or("", |(_echo, printed)| printed);
            for text in *wanted {
                ensure!(printed.contains(text), "`{line}`: expected `{text}`, got:\n{printed}");
            }
        }
        ensure!(output.contains("reboot: Power down") || output.contains("System halted"), "no power off");
        ensure!(report.status == Status::Ok, "expected status 0");
        Ok(())
    };
    judge().with_context(|| report.tail())
}
