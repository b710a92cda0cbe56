//! Guests that attack, break things, or run random instructions. What becomes of them is their affair; the hypervisor must
//! stay alive, say what happened, and end by itself.

use anyhow::{Context as _, ensure};
use gnomon_guests::{GUESTS, Guest, Kind};
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::guests::{last_line, variants};
use crate::machine::{self, Host, Report};
use crate::{compare, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for host in Host::BOTH {
        for guest in GUESTS.iter().filter(|guest| guest.kind == Kind::Hostile) {
            for (name, arguments) in variants(guest) {
                trials
                    .push(trial(format!("hostile::{}::{name}", host.name()), move || survives(host, guest, arguments)));
            }
        }
        trials.push(trial(format!("hostile::{}::beside-another", host.name()), move || others_run_on(host)));
    }
    trials
}

/// What never ends by itself; only the user's time limit, or a neighbour's end, is there to judge it by.
pub(crate) const ENDLESS: &str = "case=spin";
/// How small kernels end.
const HALTS: &str = "case=halt";

fn survives(host: Host, guest: &'static Guest, arguments: &str) -> anyhow::Result<()> {
    if arguments == ENDLESS {
        return shares_the_cpu(host, guest);
    }
    let report = machine::gnomon(host, &[machine::describe(guest, arguments)?], "log=info")?;
    comes_to_an_end(&report, guest)?;
    ensure!(arguments != HALTS || report.status == Status::Ok, "HLT with interrupts off is a good end");
    Ok(())
}

/// The hypervisor is alive and says how the guest ended.
pub(crate) fn comes_to_an_end(report: &Report, guest: &Guest) -> anyhow::Result<()> {
    let judge = || {
        ensure!(report.status != Status::Timeout, "the guest did not come to an end in time");
        ensure!(matches!(report.status, Status::Ok | Status::Guest), "the hypervisor did not survive");
        let stopped = report.hypervisor.iter().any(|line| line.contains(&format!("guest {}: ", guest.name)));
        ensure!(stopped, "the hypervisor did not say how the guest ended");
        let unasked = report.hypervisor.iter().any(|line| line.contains("switched tasks"));
        ensure!(!unasked, "the CPU has loaded a CR3 of the guest's");
        last_line(report)
    };
    judge().with_context(|| report.tail())
}

/// A guest that spins with interrupts off does not keep the CPU from its neighbour.
fn shares_the_cpu(host: Host, hostile: &'static Guest) -> anyhow::Result<()> {
    let Some(peaceful) = GUESTS.iter().find(|guest| guest.kind == Kind::Tap) else { return Ok(()) };
    let guests = [machine::describe(hostile, ENDLESS)?, machine::describe(peaceful, "")?];
    let ended = format!("guest {}: ended with status 0", peaceful.name);
    let report = machine::gnomon_until(host, &guests, &ended)?;
    let judge = || neighbour(&report, peaceful);
    judge().with_context(|| report.tail())
}

/// The TAP of one guest among several is in order.
pub(crate) fn neighbour(report: &Report, guest: &Guest) -> anyhow::Result<()> {
    let prefix = format!("{}| ", guest.name);
    let text = String::from_utf8_lossy(&report.output);
    let alone: String = text.lines().filter_map(|l| l.strip_prefix(&prefix)).flat_map(|l| [l, "\n"]).collect();
    compare::tap(alone.as_bytes()).map(drop).with_context(|| format!("guest {}", guest.name))
}

/// A hostile guest does not disturb its neighbour.
fn others_run_on(host: Host) -> anyhow::Result<()> {
    let Some(hostile) = GUESTS.iter().find(|guest| guest.kind == Kind::Hostile) else { return Ok(()) };
    let Some(peaceful) = GUESTS.iter().find(|guest| guest.kind == Kind::Tap) else { return Ok(()) };
    let arguments = hostile.command_lines.first().copied().unwrap_or_default();
    let guests = [machine::describe(hostile, arguments)?, machine::describe(peaceful, "")?];
    let report = machine::gnomon(host, &guests, "log=info")?;
    let judge = || {
        ensure!(matches!(report.status, Status::Ok | Status::Guest), "the hypervisor did not survive");
        neighbour(&report, peaceful)?;
        last_line(&report)
    };
    judge().with_context(|| report.tail())
}
