//! System calls by INT 0x80.
#![no_std]
#![no_main]

mod common;

common::guest!("syscalls");
