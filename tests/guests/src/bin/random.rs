//! Random bytes as instructions.
#![no_std]
#![no_main]

mod common;

common::guest!("random");
