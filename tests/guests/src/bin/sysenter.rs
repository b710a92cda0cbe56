//! SYSENTER and SYSEXIT.
#![no_std]
#![no_main]

mod common;

common::guest!("sysenter");
