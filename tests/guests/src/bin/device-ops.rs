//! Instructions with operands in device memory.
#![no_std]
#![no_main]

mod common;

common::guest!("device-ops");
