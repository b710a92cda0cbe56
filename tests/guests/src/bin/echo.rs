//! Sends back what is typed.
#![no_std]
#![no_main]

mod common;

common::guest!("echo");
