//! Sensitive instructions that do not trap outside ring 0.
#![no_std]
#![no_main]

mod common;

common::guest!("sensitive");
