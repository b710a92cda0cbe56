//! SMEP, SMAP and UMIP.
#![no_std]
#![no_main]

mod common;

common::guest!("user-pages");
