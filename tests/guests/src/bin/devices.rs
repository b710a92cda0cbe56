//! The other devices of a PC.
#![no_std]
#![no_main]

mod common;

common::guest!("devices");
