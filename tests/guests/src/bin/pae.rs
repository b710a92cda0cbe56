//! PAE paging.
#![no_std]
#![no_main]

mod common;

common::guest!("pae");
