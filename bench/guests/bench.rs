//! What the operations of a guest kernel cost, by RDTSC: `bench/guests/asm`.
#![no_std]
#![no_main]

#[path = "../../tests/guests/src/bin/common/mod.rs"]
mod common;

common::guest!(
    "../../../bench/guests/asm/harness",
    "../../../bench/guests/asm/tables",
    "../../../bench/guests/asm/exits",
    "../../../bench/guests/asm/mmu",
    "../../../bench/guests/asm/family"
);
