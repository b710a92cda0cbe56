//! Segment registers: refused loads, emptying at returns, the LDT.
#![no_std]
#![no_main]

mod common;

common::guest!("segments");
