//! What a boot loader leaves.
#![no_std]
#![no_main]

mod common;

common::guest!("boot");
