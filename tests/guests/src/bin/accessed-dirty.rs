//! Accessed and dirty bits.
#![no_std]
#![no_main]

mod common;

common::guest!("accessed-dirty");
