//! What a monitor may do in a shorter way.
#![no_std]
#![no_main]

mod common;

common::guest!("often");
