//! IOPL and the I/O permission bitmap.
#![no_std]
#![no_main]

mod common;

common::guest!("iopl");
