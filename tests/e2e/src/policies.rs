//! Guests that live by their page tables, under every policy: what they print must not depend on it.

use anyhow::{Context as _, ensure};
use gnomon_guests::{GUESTS, Guest};
use gnomon_host::status::Status;
use libtest_mimic::Trial;

use crate::compare;
use crate::guests::variants;
use crate::machine::{self, Host};
use crate::trial;

/// What is not the default.
const POLICIES: [&str; 2] = ["unsync", "vtlb"];

/// Guests that change page tables, or watch what becomes of them.
const GUEST_NAMES: [&str; 13] = [
    "paging-on-off",
    "demand-paging",
    "protection",
    "wp-zero",
    "accessed-dirty",
    "cr3-switch",
    "invlpg",
    "pse",
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
                    trials.push(trial(name, move || same_under(host, policy, guest, arguments)));
                }
            }
        }
    }
    trials
}

fn same_under(host: Host, policy: &str, guest: &'static Guest, arguments: &str) -> anyhow::Result<()> {
    let expected = machine::bare(host, guest, arguments)?;
    let mut described = machine::describe(guest, arguments)?;
    described.words.push(format!("shadow={policy}"));
    let report = machine::gnomon(host, &[described], "log=info")?;
    let judge = || {
        compare::same(&expected.output, &report.output)?;
        ensure!(report.status == Status::Ok, "expected status 0");
        Ok(())
    };
    judge().with_context(|| report.tail())
}
