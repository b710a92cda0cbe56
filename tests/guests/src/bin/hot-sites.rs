//! CLI, STI, PUSHF and POPF that run often.
#![no_std]
#![no_main]

mod common;

common::guest!("hot-sites");
