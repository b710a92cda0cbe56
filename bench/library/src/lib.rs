//! A guest in plain arrays, and the workloads that the shadow MMU is measured with.
//!
//! Only calls of the library are measured: each goes through [`Measure::call`]. What the guest and its CPU do around them is not.
//! `cost` counts instructions in it with callgrind; `benches/times.rs` takes the time of whole workloads.

pub mod guest;
pub mod memory;
pub mod workload;

/// Around each call of the library.
pub trait Measure {
    /// Does `work`, and measures it.
    fn call<R>(&mut self, work: impl FnOnce() -> R) -> R;
}

impl Measure for () {
    fn call<R>(&mut self, work: impl FnOnce() -> R) -> R {
        work()
    }
}
