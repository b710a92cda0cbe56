//! Guests that live by their page tables, under every policy: what they print must not depend on it.

use anyhow::ensure;
use gnomon_guests::{GUESTS, Guest};
use libtest_mimic::Trial;

use crate::guests::{same_with, variants};
use crate::machine::Host;
use crate::trial;

/// What is not the default, which all other tests run on.
const POLICIES: [&str; 3] = ["write-protect", "unsync", "vtlb"];

/// Switches that are not the default, each at least once, and the counters that say that they did something in the guest named.
const SWITCHES: [(&str, &str, &[&str]); 12] = [
    ("vtlb,global=on", "global", &["sptes-global", "tlb-trims"]),
    ("vtlb,global=off", "stress", &["tlb-drops"]),
    ("absent=on", "stress", &["absents-marked", "absents-known"]),
    ("unsync:2,patience=0,absent=on", "stress", &["tables-unsynced", "tables-resynced", "absents-known"]),
    ("unsync,patience=0,ahead=on", "demand-paging", &["filled-ahead"]),
    ("vtlb,ahead=off", "stress", &["tlb-drops"]),
    ("prefetch=8,roots=1", "stress", &["sptes-prefetched"]),
    ("flood=3,roots=0", "stress", &["tables-flooded", "roots-dropped"]),
    ("teardown=3", "stress", &["tables-torn-down"]),
    ("huge=on", "pse", &["huge-fills", "huge-breaks"]),
    ("vtlb,huge=on", "pse", &["huge-fills", "tlb-trims"]),
    ("eager=off,reuse=off,flood=0", "stress", &["sptes-zapped"]),
];

/// Guests that every switch runs.
const SWITCHED: [&str; 6] = ["pse", "global", "stress", "pae", "demand-paging", "cr3-switch"];

/// Guests that change page tables, or watch what becomes of them.
const GUEST_NAMES: [&str; 15] = [
    "paging-on-off",
    "demand-paging",
    "protection",
    "wp-zero",
    "accessed-dirty",
    "cr3-switch",
    "invlpg",
    "global",
    "pse",
    "full-directory",
    "pae",
    "self-map",
    "aliases",
    "stress",
    "segments",
];

/// Of these, the ones that run on Bochs as well, which is slow.
const ON_BOCHS: [&str; 3] = ["cr3-switch", "invlpg", "stress"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for policy in POLICIES {
        for guest in GUESTS.iter().filter(|guest| GUEST_NAMES.contains(&guest.name)) {
            for host in Host::BOTH {
                if host == Host::Bochs && !ON_BOCHS.contains(&guest.name) {
                    continue;
                }
                for (name, arguments) in variants(guest) {
                    let name = format!("policy::{}::{policy}::{name}", host.name());
                    trials.push(trial(name, move || {
                        same_with(host, &format!("shadow={policy}"), guest, arguments).map(drop)
                    }));
                }
            }
        }
    }
    for (policy, subject, counters) in SWITCHES {
        for guest in GUESTS.iter().filter(|guest| SWITCHED.contains(&guest.name)) {
            for (name, arguments) in variants(guest) {
                let counters = if guest.name == subject { counters } else { &[] };
                let name = format!("switch::qemu::{policy}::{name}");
                trials.push(trial(name, move || switched(policy, guest, arguments, counters)));
            }
        }
    }
    trials
}

/// A guest prints the same, and the end report has the counters of the switch.
fn switched(policy: &str, guest: &'static Guest, arguments: &str, counters: &[&str]) -> anyhow::Result<()> {
    let report = same_with(Host::Qemu, &format!("shadow={policy}"), guest, arguments)?;
    for counter in counters {
        ensure!(
            report.hypervisor.iter().any(|line| line.contains(&format!(" {counter} "))),
            "no {counter} in the end report"
        );
    }
    Ok(())
}
