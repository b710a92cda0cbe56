//! Guests that attack, break things, or run random instructions. What becomes of them is their affair; the hypervisor must
//! stay alive, say what happened, and end by itself.

use anyhow::{Context as _, ensure};
use gnomon_guests::{GUESTS, Guest, Kind};
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::guests::{last_line, variants};
use crate::machine::{self, Host};
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

fn survives(host: Host, guest: &'static Guest, arguments: &str) -> anyhow::Result<()> {
    let report = machine::gnomon(host, &[machine::describe(guest, arguments)?], "log=info")?;
    let judge = || {
        ensure!(matches!(report.status, Status::Ok | Status::Guest), "the hypervisor did not survive");
        let stopped = report.hypervisor.iter().any(|line| line.contains(&format!("guest {}: ", guest.name)));
        ensure!(stopped, "the hypervisor did not say how the guest ended");
        last_line(&report)
    };
    judge().with_context(|| report.tail())
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
        let prefix = format!("{}| ", peaceful.name);
        let text = String::from_utf8_lossy(&report.output);
        let alone: String = text.lines().filter_map(|l| l.strip_prefix(&prefix)).flat_map(|l| [l, "\n"]).collect();
        compare::tap(alone.as_bytes()).with_context(|| format!("guest {}", peaceful.name))?;
        last_line(&report)
    };
    judge().with_context(|| report.tail())
}
