//! Times of the workloads: `cargo bench -p gnomon-bench-library`. A whole workload is timed, preparation left out.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gnomon_bench_library::guest::Guest;
use gnomon_bench_library::workload::{POLICIES, TIMED, WORKLOADS, policy, run};

fn all(criterion: &mut Criterion) {
    for workload in WORKLOADS {
        let mut group = criterion.benchmark_group(workload.name);
        group.throughput(Throughput::Elements(TIMED)).sample_size(10);
        for (name, &size) in POLICIES.iter().flat_map(|name| workload.sizes.iter().map(move |size| (name, size))) {
            let chosen = policy(name).unwrap_or_default();
            group.bench_function(BenchmarkId::new(*name, size), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut total = Duration::ZERO;
                    for _ in 0..rounds {
                        let mut start = None;
                        let mut guest = Guest::new(chosen, ());
                        run(workload.name, size, TIMED, &mut guest, |_| start = Some(Instant::now()));
                        total += start.map_or(total, |start| start.elapsed());
                    }
                    total
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = times;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = all
}
criterion_main!(times);
