//! Does the runs: counts on all cores, since they do not depend on what else the machine does; times one by one, after them.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::measure::{Boot, Job};
use super::results::{Clock, Run};
use crate::progress;
use crate::status::Failed;

/// A boot that was done, with the index of its job.
type Done = (usize, anyhow::Result<Boot>);

/// Runs all jobs; the results are in their order.
///
/// # Errors
/// The first that a job had.
pub(super) fn run(jobs: &[Job], kernel: &Path) -> anyhow::Result<Vec<Run>> {
    let boots: usize = jobs.iter().map(|job| job.repeats as usize).sum();
    let done = AtomicUsize::new(0);
    let report = |job: &Job, start: Instant| {
        let number = done.fetch_add(1, Ordering::Relaxed) + 1;
        let seconds = start.elapsed().as_secs_f64();
        progress::note(&format!("[{number}/{boots}] {} ({seconds:.1} s)", job.describe()));
    };
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let mut results = share(jobs, &boots_of(jobs, Clock::Count), workers, kernel, &report)?;
    results.extend(share(jobs, &boots_of(jobs, Clock::Wall), 1, kernel, &report)?);
    results.sort_by_key(|(index, _)| *index);
    let mut boots: Vec<Vec<Boot>> = jobs.iter().map(|_| Vec::new()).collect();
    for (index, boot) in results {
        boots[index].push(boot?);
    }
    Ok(jobs.iter().zip(boots).map(|(job, boots)| job.joined(boots)).collect())
}

/// The index of a job for each of its boots, the longest jobs first: what comes last should be short, or a core is idle at the end.
fn boots_of(jobs: &[Job], clock: Clock) -> Vec<usize> {
    let wanted = jobs.iter().enumerate().filter(|(_, job)| job.clock == clock);
    let mut boots: Vec<usize> = wanted.flat_map(|(index, job)| (0..job.repeats).map(move |_| index)).collect();
    boots.sort_by_key(|&index| Reverse(jobs[index].column.weight()));
    boots
}

/// Does these boots. After an error no other begins.
fn share(
    jobs: &[Job],
    boots: &[usize],
    workers: usize,
    kernel: &Path,
    report: &(dyn Fn(&Job, Instant) + Sync),
) -> anyhow::Result<Vec<Done>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Done>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers.min(boots.len()) {
            scope.spawn(|| {
                while let Some(&index) = boots.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (job, start) = (&jobs[index], Instant::now());
                    let result = job.boot(kernel);
                    report(job, start);
                    if result.is_err() {
                        next.store(boots.len(), Ordering::Relaxed);
                    }
                    if let Ok(mut results) = results.lock() {
                        results.push((index, result));
                    }
                }
            });
        }
    });
    results.into_inner().map_err(|_| Failed::tool("a worker of the benchmark has panicked"))
}

#[cfg(test)]
mod tests {
    use super::super::built_in;
    use super::super::column::{Column, Wanted};
    use super::*;

    #[test]
    fn every_boot_is_there_once_and_the_longest_begin() {
        let subject = built_in("").unwrap();
        let columns = Column::matrix(Wanted { machines: &[], backends: &[], policies: &[] });
        let job =
            |&column: &Column| Job { subject: subject.clone(), column, clock: Clock::Count, repeats: 2, timeout: 1.0 };
        let jobs: Vec<Job> = columns.iter().map(job).collect();
        let mut boots = boots_of(&jobs, Clock::Count);
        assert!(boots_of(&jobs, Clock::Wall).is_empty());
        let weights: Vec<u32> = boots.iter().map(|&index| jobs[index].column.weight()).collect();
        assert!(weights.is_sorted_by(|a, b| a >= b));
        boots.sort_unstable();
        assert_eq!(boots, (0..jobs.len()).flat_map(|index| [index, index]).collect::<Vec<_>>());
    }
}
