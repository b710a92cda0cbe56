//! Does the runs: counts two at a time, since they do not depend on what else the machine does; times one by one, after them.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::measure::Job;
use super::results::{Clock, Run};
use crate::progress;
use crate::status::Failed;

/// Runs all jobs; the results are in their order.
///
/// # Errors
/// The first that a job had.
pub(super) fn run(jobs: &[Job], kernel: &Path) -> anyhow::Result<Vec<Run>> {
    let done = AtomicUsize::new(0);
    let report = |job: &Job, start: Instant| {
        let number = done.fetch_add(1, Ordering::Relaxed) + 1;
        let seconds = start.elapsed().as_secs_f64();
        progress::note(&format!("[{number}/{}] {} ({seconds:.1} s)", jobs.len(), job.describe()));
    };
    let counts: Vec<&Job> = jobs.iter().filter(|job| job.clock == Clock::Count).collect();
    let times: Vec<&Job> = jobs.iter().filter(|job| job.clock == Clock::Wall).collect();
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let mut runs = share(&counts, workers, kernel, &report)?;
    runs.extend(share(&times, 1, kernel, &report)?);
    Ok(runs)
}

fn share(
    jobs: &[&Job],
    workers: usize,
    kernel: &Path,
    report: &(dyn Fn(&Job, Instant) + Sync),
) -> anyhow::Result<Vec<Run>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, anyhow::Result<Run>)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers.min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { return };
                    let start = Instant::now();
                    let result = job.run(kernel);
                    report(job, start);
                    let stop = result.is_err();
                    if let Ok(mut results) = results.lock() {
                        results.push((index, result));
                    }
                    if stop {
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().map_err(|_| Failed::tool("a worker of the benchmark has panicked"))?;
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
