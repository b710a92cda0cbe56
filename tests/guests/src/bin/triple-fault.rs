//! A triple fault resets the machine.
#![no_std]
#![no_main]

mod common;

common::guest!("triple-fault");
