//! An IDE disk by programmed I/O and by the bus master.
#![no_std]
#![no_main]

mod common;

common::guest!("ide", "ide/dma");
