//! The protection matrix of two-level page tables.
#![no_std]
#![no_main]

mod common;

common::guest!("protection");
