//! Timer interrupts with CLI, STI and HLT.
#![no_std]
#![no_main]

mod common;

common::guest!("timer");
