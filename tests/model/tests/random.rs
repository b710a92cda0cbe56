//! Random guests: whatever they do, the library does what the reference does.

use gnomon_model::event;
use gnomon_model::run::{SETUP, run};
use proptest::array::{uniform8, uniform12};
use proptest::collection::vec;
use proptest::prelude::*;

/// How many random guests: PROPTEST_CASES, or as many as take a few seconds.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

const _: () = assert!(SETUP == 8 && event::SIZE == 12, "the sizes of the arrays below");

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_library_behaves_as_the_reference(
        first in uniform8(any::<u8>()),
        events in vec(uniform12(any::<u8>()), 1..200),
    ) {
        let mut told = Vec::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(first, &events, |event| told.push(event.clone()));
        }));
        if result.is_err() {
            prop_assert!(false, "{first:?}: {told:x?}");
        }
    }
}
