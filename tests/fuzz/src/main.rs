//! Guests made of bytes, on the shadow MMU and on the model beside it. `scripts/gnomon fuzz` builds and runs it.
//!
//! The first eight bytes say how the machine is built, each twelve after them are an event (`gnomon_model::run`). An input that panics
//! is a guest that sees a difference. Run one again with `GNOMON_TELL` set, and it says what happens.
#![no_main]

use gnomon_model::event;
use gnomon_model::run::{SETUP, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first_chunk::<SETUP>() else { return };
    let (events, _) = rest.as_chunks::<{ event::SIZE }>();
    let tell = std::env::var_os("GNOMON_TELL").is_some();
    run(first, events, |event| {
        if tell {
            eprintln!("{event:x?}");
        }
    });
});
