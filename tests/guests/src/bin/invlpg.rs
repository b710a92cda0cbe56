//! What INVLPG and CR3 loads must make visible.
#![no_std]
#![no_main]

mod common;

common::guest!("invlpg");
