//! End-to-end tests: guests on emulated machines, bare and under Gnomon, and the host tool as a user calls it.
//!
//! Tests are made at run time, from the list of guests: `bare::qemu::timer` runs one guest bare and wants every TAP line to be
//! `ok`; `gnomon::qemu::timer` runs the same file under Gnomon and wants the same bytes. [`guests`] has those, [`policies`]
//! some of them under each policy, `patches` some with and without patches of hot sites, [`backends`] the same under VT-x and AMD-V,
//! [`hostile`] what a hypervisor must survive,
//! [`console`] what is typed, [`linux`] Debian's kernels, [`foreign`] other kernels from its packages, [`tool`] messages and exit codes, [`story`] the demo.
#![forbid(unsafe_code)]

pub mod backends;
pub mod compare;
pub mod console;
mod devices;
pub mod foreign;
pub mod guests;
pub mod hostile;
pub mod linux;
pub mod machine;
mod patches;
pub mod policies;
pub mod story;
pub mod tool;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

/// Emulators that run at the same time.
pub const PARALLEL: usize = 2;

/// Every test.
#[must_use]
pub fn trials() -> Vec<Trial> {
    let mut trials = guests::trials();
    trials.extend(policies::trials());
    trials.extend(patches::trials());
    trials.extend(backends::trials());
    trials.extend(hostile::trials());
    trials.extend(tool::trials());
    trials.extend(console::trials());
    trials.extend(devices::trials());
    trials.extend(linux::trials());
    trials.extend(foreign::trials());
    trials.extend(story::trials());
    trials
}

/// How long each test took.
static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// The tests that took longest, and how long: where to look when all together take too long.
#[must_use]
pub fn slowest(count: usize) -> Vec<(Duration, String)> {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    times.sort_by(|one, other| other.cmp(one));
    times.truncate(count);
    times
}

/// Whether the tests that take many minutes are wanted as well.
fn slow_ones() -> bool {
    std::env::var_os("GNOMON_SLOW").is_some()
}

/// A test that runs only when asked for, and not at all after a Ctrl-C.
fn trial(name: impl Into<String>, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    let name = name.into();
    let timed = name.clone();
    let run = move || {
        if gnomon_host::interrupt::pending() {
            std::process::exit(130);
        }
        let start = Instant::now();
        let result = test();
        TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((start.elapsed(), timed));
        result.map_err(|error| Failed::from(format!("{error:#}")))
    };
    Trial::test(name, run).with_ignored_flag(true)
}
