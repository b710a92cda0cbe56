//! Times of the workloads: `cargo bench -p gnomon-bench-library`. A whole workload is timed, preparation left out.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gnomon_bench_library::guest::Guest;
use gnomon_bench_library::workload::{POLICIES, WORKLOADS, policy, run};

/// Operations of a run.
const COUNT: u64 = 1000;

fn all(criterion: &mut Criterion) {
    for workload in WORKLOADS {
        let mut group = criterion.benchmark_group(workload.name);
        group.throughput(Throughput::Elements(COUNT)).sample_size(10);
        for (name, &size) in POLICIES.iter().flat_map(|name| workload.sizes.iter().map(move |size| (name, size))) {
            let chosen = policy(name).unwrap_or_default();
            group.bench_function(BenchmarkId::new(*name, size), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut total = std::time::Duration::ZERO;
                    for _ in 0..rounds {
                        let mut start = None;
                        let mut guest = Guest::new(chosen, ());
                        run(workload.name, size, COUNT, &mut guest, |_| start = Some(std::time::Instant::now()));
                        total += start.map_or(total, |start| start.elapsed());
                    }
                    total
                });
            });
        }
        group.finish();
    }
}

criterion_group!(times, all);
criterion_main!(times);
