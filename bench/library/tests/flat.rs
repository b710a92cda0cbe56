//! A cost grows with what changed, not with what exists: touches of guest memory and of shadow tables, counted. Instructions are
//! counted by `scripts/gnomon bench library`, which fails for the same reason.

use gnomon_bench_library::guest::Guest;
use gnomon_bench_library::workload::{POLICIES, WORKLOADS, policy, run};

/// Operations of a run.
const COUNT: u64 = 64;

fn touches(name: &str, policy_name: &str, size: u64) -> u64 {
    let mut guest = Guest::new(policy(policy_name).expect("a policy"), ());
    let mut before = 0;
    let done = run(name, size, COUNT, &mut guest, |guest| before = guest.touches());
    let touches = guest.touches() - before;
    guest.mmu.audit().expect("sound");
    assert!(done > 0);
    touches
}

#[test]
fn what_exists_costs_nothing() {
    for workload in WORKLOADS.iter().filter(|workload| workload.sizes.len() > 1) {
        for policy in POLICIES {
            let sizes: Vec<u64> = workload.sizes.iter().copied().filter(|&size| size >= workload.flat_from).collect();
            let [first, .., last] = sizes[..] else { panic!("sizes to compare") };
            let (few, many) = (touches(workload.name, policy, first), touches(workload.name, policy, last));
            assert_eq!(few, many, "{} under {policy}: size {first}, then {last}", workload.name);
        }
    }
}

#[test]
fn every_workload_runs_under_every_policy() {
    for workload in WORKLOADS {
        for policy in POLICIES {
            assert!(touches(workload.name, policy, workload.sizes[0]) > 0);
        }
    }
}
