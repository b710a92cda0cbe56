//! Global pages: what INVLPG, CR4.PGE and CR3 loads must make visible.
#![no_std]
#![no_main]

mod common;

common::guest!("global");
