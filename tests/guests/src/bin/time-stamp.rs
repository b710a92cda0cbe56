//! The time stamp counter, written.
#![no_std]
#![no_main]

mod common;

common::guest!("time-stamp");
