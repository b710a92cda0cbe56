//! What Gnomon writes down: exit reasons, counters and fixed-size trace records.
//!
//! The kernel fills these on the exit path (an array add, or one 40-byte store), the host tool decodes them. Both sides use
//! this crate, so that there is one description of the format. Nothing here formats text on the exit path.
//!
//! A record stream is a plain concatenation of [`Record`]s, little-endian, each [`Record::SIZE`] bytes. The first record of a
//! stream is [`Kind::Header`] and names the format's version.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod reason;
mod record;
mod ring;

pub use reason::{Counters, Reason};
pub use record::{Kind, Record, VERSION};
pub use ring::Ring;
