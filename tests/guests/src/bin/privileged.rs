//! Privileged instructions work in ring 0 and fault in ring 3.
#![no_std]
#![no_main]

mod common;

common::guest!("privileged");
