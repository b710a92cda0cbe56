//! A naive model of x86 paging, and a machine that runs the shadow MMU beside it and compares.
//!
//! - `reference` is the model: one walk after the other, no cache, no library code. `ram` is its memory.
//! - `caches` knows what a real CPU might still believe, so what may be stale; nothing else may.
//! - `host` and `cpu` are what the library needs below and around it: guest memory scattered over host frames, frames for tables,
//!   and a CPU that walks those tables with a TLB.
//! - `machine` does every event on both sides. `event` makes events from bytes, `guest` builds page tables.

pub mod caches;
pub mod cpu;
pub mod event;
pub mod guest;
pub mod host;
pub mod machine;
pub mod ram;
pub mod reference;
pub mod run;
