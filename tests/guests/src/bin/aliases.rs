//! Page tables written through aliases.
#![no_std]
#![no_main]

mod common;

common::guest!("aliases");
