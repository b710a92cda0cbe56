//! The Gnomon virtual machine monitor: what happens between a trap of the guest and its next instruction.
//!
//! Safe code only. The real CPU and real memory are reached through `gnomon-hw`, whose last gates check owners and descriptors;
//! page tables are the business of `shadow-mmu`. Where a trap goes:
//!
//! | What trapped | File |
//! |---|---|
//! | any exit, first look | `exit/mod.rs` |
//! | page fault | `exit/fault.rs` |
//! | general protection, not present, invalid opcode: decode and emulate | `emul/mod.rs` |
//! | INT3 of shadow code, fetch from the code window | `code/exits.rs` |
//! | exception or interrupt for the guest | `event.rs` |
//! | host interrupt, timers, idling | `run.rs` |
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

extern crate alloc;

pub mod config;
pub mod dev;
pub mod loader;
pub mod trap;
pub mod vcpu;

mod build;
mod clock;
mod code;
mod console;
mod debug;
mod disk_dma;
mod disk_frames;
mod disk_save;
mod emul;
mod event;
mod exit;
mod firmware;
mod hardware;
mod interrupt;
mod marks;
mod memory;
pub mod memory_map;
mod progress;
mod ram;
mod report;
mod run;
mod screen_view;
mod segments;
mod task;
mod tracer;
mod unasked;
mod v86;
mod vm;

pub use run::{Ending, run};
