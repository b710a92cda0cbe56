//! The test binary: one test for each guest, machine and claim. The tests take minutes, so they are ignored unless asked for:
//! `scripts/gnomon test` asks, and so does `cargo test -p gnomon-e2e -- --include-ignored`.

use gnomon_e2e::{PARALLEL, slowest, trials};
use libtest_mimic::Arguments;

/// So many tests are named with their time when all have run.
const SLOWEST: usize = 20;

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(PARALLEL);
    if let Err(error) = gnomon_host::interrupt::install() {
        eprintln!("cannot handle signals: {error}");
    }
    gnomon_host::progress::set_quiet(true);
    let conclusion = libtest_mimic::run(&arguments, trials());
    for (time, name) in slowest(SLOWEST) {
        println!("{:7.1} s  {name}", time.as_secs_f64());
    }
    if arguments.filter.is_some() && conclusion.num_passed + conclusion.num_failed == 0 && !arguments.list {
        eprintln!("no test has this in its name, or all are ignored (--list lists them)");
        return std::process::ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
