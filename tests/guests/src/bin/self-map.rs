//! A page directory that maps itself.
#![no_std]
#![no_main]

mod common;

common::guest!("self-map");
