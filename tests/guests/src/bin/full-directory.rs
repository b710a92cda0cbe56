//! A page directory without an empty entry.
#![no_std]
#![no_main]

mod common;

common::guest!("full-directory");
