//! One way to break out, chosen on the command line.
#![no_std]
#![no_main]

mod common;

common::guest!("hostile", "hostile/tables", "hostile/selectors", "hostile/machine", "hostile/devices");
