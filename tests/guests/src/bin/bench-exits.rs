//! Cost of privileged operations.
#![no_std]
#![no_main]

mod common;

common::guest!("bench-exits");
