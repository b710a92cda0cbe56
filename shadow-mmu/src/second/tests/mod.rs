//! A naive CPU walks the tables in the manual's own terms; random events are compared with the memory slots.

mod breaks;
mod cpu;
mod machine;
mod random;
mod scenarios;

pub(crate) use breaks::seen;
