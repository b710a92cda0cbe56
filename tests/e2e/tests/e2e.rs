//! The test binary: one test for each guest, machine and claim. The tests take minutes, so they are ignored unless asked for:
//! `scripts/gnomon test` asks, and so does `cargo test -p gnomon-e2e -- --include-ignored`.

use gnomon_e2e::{PARALLEL, trials};
use libtest_mimic::Arguments;

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(PARALLEL);
    if let Err(error) = gnomon_host::interrupt::install() {
        eprintln!("cannot handle signals: {error}");
    }
    gnomon_host::progress::set_quiet(true);
    libtest_mimic::run(&arguments, trials()).exit_code()
}
