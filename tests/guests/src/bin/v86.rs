//! Virtual-8086 mode.
#![no_std]
#![no_main]

mod common;

common::guest!("v86");
