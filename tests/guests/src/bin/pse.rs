//! 4 MiB pages.
#![no_std]
#![no_main]

mod common;

common::guest!("pse");
