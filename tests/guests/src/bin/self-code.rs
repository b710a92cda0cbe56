//! A kernel that reads, writes and jumps into its own code.
#![no_std]
#![no_main]

mod common;

common::guest!("self-code");
