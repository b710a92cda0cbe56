//! Local APIC and I/O APIC.
#![no_std]
#![no_main]

mod common;

common::guest!("apic");
