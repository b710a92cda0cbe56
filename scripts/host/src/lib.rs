//! The Gnomon host tool as a library: it builds the kernel, makes boot images, drives QEMU and Bochs, takes their console
//! apart, and decodes traces. The `gnomon` command and the end-to-end tests are both thin users of it.
#![forbid(unsafe_code)]

pub mod bench;
pub mod build;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod console;
pub mod demo;
pub mod disk;
pub mod dispatch;
pub mod doctor;
pub mod guest;
pub mod image;
pub mod interrupt;
pub mod machine;
pub mod profile;
pub mod progress;
pub mod run;
pub mod status;
pub mod symbols;
pub mod terminal;
pub mod trace;
pub mod workspace;
