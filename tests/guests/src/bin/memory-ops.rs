//! Integer instructions with a memory operand.
#![no_std]
#![no_main]

mod common;

common::guest!("memory-ops");
