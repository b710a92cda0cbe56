//! Task gates as handlers.
#![no_std]
#![no_main]

mod common;

common::guest!("task-gates");
