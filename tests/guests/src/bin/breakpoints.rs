//! Hardware breakpoints and single steps.
#![no_std]
#![no_main]

mod common;

common::guest!("breakpoints");
