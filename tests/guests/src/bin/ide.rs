//! An IDE disk by programmed I/O.
#![no_std]
#![no_main]

mod common;

common::guest!("ide");
