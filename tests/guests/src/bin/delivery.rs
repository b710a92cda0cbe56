//! Events whose delivery meets another.
#![no_std]
#![no_main]

mod common;

common::guest!("delivery");
