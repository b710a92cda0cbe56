//! Pages that appear when they are touched.
#![no_std]
#![no_main]

mod common;

common::guest!("demand-paging");
