//! Exceptions: vectors, error codes, addresses, nesting.
#![no_std]
#![no_main]

mod common;

common::guest!("faults");
