//! Calls and returns to ring 3 behind CLI, STI and POPF that run often.
#![no_std]
#![no_main]

mod common;

common::guest!("hot-calls");
