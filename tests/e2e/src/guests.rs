//! Every micro-guest, on both machines, bare and under Gnomon.

use anyhow::{Context as _, ensure};
use gnomon_guests::{GUESTS, Guest, Kind};
use gnomon_host::machine::Ending;
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::compare;
use crate::hostile::neighbour;
use crate::machine::{self, Host, Report};
use crate::patches::count;
use crate::trial;

const QUIET: &str = "log=info";
/// Every exit is traced, and none takes a short way.
const TRACED: &str = "log=info trace=on";
/// Its trace is too long to be written in reasonable time.
const TOO_LONG: &str = "stress";

/// What cannot run right on Bochs, whose CPU has no keys for supervisor pages: the kernel could read shadow code there.
const READS_CODE: &str = "probe=reads";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for host in Host::BOTH {
        for (name, guest, arguments) in judged() {
            if is_judge(host, guest) {
                trials.push(trial(format!("bare::{}::{name}", host.name()), move || bare(host, guest, arguments)));
            }
            if host == Host::Bochs && arguments == READS_CODE {
                continue;
            }
            let test = move || gnomon(host, guest, arguments, QUIET);
            trials.push(trial(format!("gnomon::{}::{name}", host.name()), test));
        }
        for guest in GUESTS.iter().filter(|guest| guest.kind == Kind::Bench) {
            trials.push(trial(format!("gnomon::{}::{}", host.name(), guest.name), move || bench(host, guest)));
        }
        trials.push(trial(format!("several::{}", host.name()), move || several(host)));
        trials.push(trial(format!("smap::{}", host.name()), move || with_smap(host)));
    }
    if let Some(guest) = GUESTS.iter().find(|guest| guest.kind == Kind::Tap) {
        let name = format!("gnomon::{}::{}", Host::QemuGrub.name(), guest.name);
        trials.push(trial(name, move || gnomon(Host::QemuGrub, guest, "", QUIET)));
    }
    // What the short ways of the hypervisor do is what the long ones do, without a difference that the guest can print.
    trials.extend(judged().filter(|(name, ..)| name != TOO_LONG).map(|(name, guest, arguments)| {
        trial(format!("long-way::qemu::{name}"), move || gnomon(Host::Qemu, guest, arguments, TRACED))
    }));
    trials
}

/// Whether what the guest prints bare on this machine is what it should print.
fn is_judge(host: Host, guest: &Guest) -> bool {
    host == Host::Bochs || guest.kind != Kind::TapOffQemu
}

/// The guests that judge themselves, with each of their command lines, by name.
fn judged() -> impl Iterator<Item = (String, &'static Guest, &'static str)> {
    let guests = GUESTS.iter().filter(|guest| matches!(guest.kind, Kind::Tap | Kind::TapOffQemu | Kind::Resets));
    guests.flat_map(|guest| variants(guest).into_iter().map(move |(name, arguments)| (name, guest, arguments)))
}

/// The guest's name with each of its command lines.
pub(crate) fn variants(guest: &'static Guest) -> Vec<(String, &'static str)> {
    if guest.command_lines.is_empty() {
        return vec![(guest.name.to_owned(), "")];
    }
    let word = |line: &str| line.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    guest.command_lines.iter().map(|line| (format!("{}::{}", guest.name, word(line)), *line)).collect()
}

fn bare(host: Host, guest: &'static Guest, arguments: &str) -> anyhow::Result<()> {
    let report = machine::bare(host, guest, arguments)?;
    let judge = || {
        compare::tap(&report.output)?;
        match guest.kind {
            Kind::Resets => ensure!(report.ending == Ending::Reset, "expected a reset"),
            _ => ensure!(report.status == Status::Ok, "expected status 0"),
        }
        Ok(())
    };
    judge().with_context(|| report.tail())
}

fn gnomon(host: Host, guest: &'static Guest, arguments: &str, words: &str) -> anyhow::Result<()> {
    let report = machine::gnomon(host, &[machine::describe(guest, arguments)?], words)?;
    bare_agrees(host, guest, arguments, &report)
}

/// Runs a guest with one more word in its description: it prints what it prints bare, and ends well.
pub(crate) fn same_with(host: Host, word: &str, guest: &'static Guest, arguments: &str) -> anyhow::Result<Report> {
    let expected = machine::bare(host, guest, arguments)?;
    let mut described = machine::describe(guest, arguments)?;
    described.words.push(word.to_owned());
    let report = machine::gnomon(host, &[described], QUIET)?;
    let judge = || {
        compare::same(&expected.output, &report.output)?;
        ensure!(report.status == Status::Ok, "expected status 0");
        Ok(())
    };
    judge().with_context(|| word.to_owned()).with_context(|| report.tail())?;
    Ok(report)
}

/// The guest printed the same as bare where that is right, and all was well.
pub(crate) fn bare_agrees(host: Host, guest: &'static Guest, arguments: &str, report: &Report) -> anyhow::Result<()> {
    let expected = if is_judge(host, guest) { Some(machine::bare(host, guest, arguments)?) } else { None };
    let judge = || {
        if let Some(expected) = &expected {
            compare::same(&expected.output, &report.output)?;
        }
        compare::tap(&report.output)?;
        // A guest that resets its machine has ended with a report, as far as Gnomon is concerned.
        let status = if guest.kind == Kind::Resets { Status::Guest } else { Status::Ok };
        ensure!(report.status == status, "expected {status:?}");
        last_line(report)
    };
    judge().with_context(|| report.tail())
}

/// The hypervisor's last line is its own.
pub(crate) fn last_line(report: &Report) -> anyhow::Result<()> {
    let last = report.hypervisor.last().map_or("", String::as_str);
    ensure!(last.starts_with("[exit] code=0x"), "the hypervisor's last line is not its exit line");
    Ok(())
}

fn bench(host: Host, guest: &'static Guest) -> anyhow::Result<()> {
    let report = machine::gnomon(host, &[machine::describe(guest, "")?], QUIET)?;
    let judge = || {
        ensure!(report.status == Status::Ok, "expected status 0");
        ensure!(!report.output.is_empty(), "expected figures");
        last_line(&report)
    };
    judge().with_context(|| report.tail())
}

/// The guests that use SMAP where CPUID has it, on a CPU that has: STAC and CLAC have exits then.
fn with_smap(host: Host) -> anyhow::Result<()> {
    let find = |name: &str| GUESTS.iter().find(|guest| guest.name == name).context("the guest");
    let report = same_with(host, "smap=on", find("user-pages")?, "")?;
    ensure!(count(&report, "other-privileged") >= 2, "the guest has seen no SMAP");
    same_with(host, "smap=on", find("task-gates")?, "").map(drop)
}

/// Two guests at once: each prints what it prints alone, line by line behind its name.
fn several(host: Host) -> anyhow::Result<()> {
    let tap: Vec<&Guest> =
        GUESTS.iter().filter(|guest| guest.kind == Kind::Tap && guest.command_lines.is_empty()).collect();
    let [first, second, ..] = tap[..] else { return Ok(()) };
    let guests = [machine::describe(first, "")?, machine::describe(second, "")?];
    let report = machine::gnomon(host, &guests, QUIET)?;
    let judge = || {
        ensure!(report.status == Status::Ok, "expected status 0");
        for guest in [first, second] {
            neighbour(&report, guest)?;
        }
        last_line(&report)
    };
    judge().with_context(|| report.tail())
}
