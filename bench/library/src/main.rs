//! Runs one workload once, for callgrind: `cost WORKLOAD POLICY SIZE COUNT`. Counted is what happens in [`measured`] after all is
//! prepared. On stdout: how many operations were done.
//!
//! `scripts/gnomon bench library` builds and runs it, and divides.

use std::process::ExitCode;

use gnomon_bench_library::Measure;
use gnomon_bench_library::guest::Guest;
use gnomon_bench_library::workload;

/// Counts once it is on.
struct Callgrind {
    on: bool,
}

/// What `--toggle-collect` names.
#[inline(never)]
fn measured<R>(work: impl FnOnce() -> R) -> R {
    std::hint::black_box(work())
}

impl Measure for Callgrind {
    fn call<R>(&mut self, work: impl FnOnce() -> R) -> R {
        if self.on { measured(work) } else { work() }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers = |n: usize| arguments.get(n).and_then(|text| text.parse::<u64>().ok());
    let (Some(name), Some(policy), Some(size), Some(count)) =
        (arguments.first(), arguments.get(1).and_then(|name| workload::policy(name)), numbers(2), numbers(3))
    else {
        eprintln!("usage: cost WORKLOAD POLICY SIZE COUNT");
        return ExitCode::FAILURE;
    };
    let mut guest = Guest::new(policy, Callgrind { on: false });
    let done = workload::run(name, size, count, &mut guest, |guest| guest.measure.on = true);
    println!("{done}");
    ExitCode::SUCCESS
}
