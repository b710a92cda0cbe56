//! Paging switched on and off.
#![no_std]
#![no_main]

mod common;

common::guest!("paging-on-off");
