//! Kernel writes to read-only pages with CR0.WP=0.
#![no_std]
#![no_main]

mod common;

common::guest!("wp-zero");
