//! Many page directories.
#![no_std]
#![no_main]

mod common;

common::guest!("cr3-switch");
