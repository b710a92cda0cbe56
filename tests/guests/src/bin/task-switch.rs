//! Hardware task switches.
#![no_std]
#![no_main]

mod common;

common::guest!("task-switch");
