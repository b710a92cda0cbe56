//! How a small Unix begins.
#![no_std]
#![no_main]

mod common;

common::guest!("upper-half");
