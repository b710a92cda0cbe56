//! Transitions between rings: gates, far transfers, IRET.
#![no_std]
#![no_main]

mod common;

common::guest!("rings");
