//! PIC, PIT and UART registers, INS and OUTS.
#![no_std]
#![no_main]

mod common;

common::guest!("io", "io/strings");
