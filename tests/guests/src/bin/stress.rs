//! Random page-table changes against a model.
#![no_std]
#![no_main]

mod common;

common::guest!("stress");
