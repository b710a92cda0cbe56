//! Exits between two marks: a benchmark guest writes a number to a port before what it measures and 0 after it, and one log line
//! says which exits happened in between. On with `marks=on` only.
//!
//! `mark 0x11: cli=1000 | flush-page=3`: exits by reason, then what the shadow MMU counted. The exits of the two writes are not
//! in it: the first is counted before the snapshot, the second is taken off.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use gnomon_trace::{Counters, Reason};

use crate::config::Switch;
use crate::vm::Vm;

/// Where marks are written.
pub(crate) const PORT: u16 = 0x5E0;

/// What was counted when the measured part began.
struct Window {
    number: u32,
    exits: Counters,
    mmu: Vec<u64>,
}

/// The marks of one guest.
pub(crate) struct Marks {
    wanted: Switch,
    open: Option<Window>,
}

impl Marks {
    /// Marks that are looked at or not.
    pub(crate) fn new(wanted: Switch) -> Self {
        Self { wanted, open: None }
    }
}

impl Vm {
    /// The guest wrote `number` to [`PORT`].
    #[cold]
    pub(crate) fn mark(&mut self, number: u32) {
        if !self.marks.wanted.is_on() {
            return;
        }
        let mmu = || self.mmu.counters().iter().map(|(_, count)| count).collect();
        let opened = (number != 0).then(|| Window { number, exits: self.counters.clone(), mmu: mmu() });
        if let Some(window) = core::mem::replace(&mut self.marks.open, opened)
            && number == 0
        {
            log::info!("mark {:#x}:{}", window.number, difference(&window, &self.counters, self.mmu.counters().iter()));
        }
    }
}

/// What happened since the window was opened, the write that closes it not counted.
fn difference(window: &Window, exits: &Counters, mmu: impl IntoIterator<Item = (&'static str, u64)>) -> String {
    let mut text = String::new();
    for (reason, count) in exits.nonzero() {
        let closing = u64::from(reason == Reason::Io);
        let count = count.wrapping_sub(window.exits.get(reason)).saturating_sub(closing);
        if count != 0 {
            let _ = write!(text, " {}={count}", reason.name());
        }
    }
    text.push_str(" |");
    for ((name, count), before) in mmu.into_iter().zip(&window.mmu) {
        if count != *before {
            let _ = write!(text, " {name}={}", count.wrapping_sub(*before));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writes_themselves_are_not_counted() {
        let mut exits = Counters::new();
        exits.add(Reason::Io); // the opening write
        exits.add(Reason::Cli);
        let window = Window { number: 1, exits: exits.clone(), mmu: alloc::vec![7, 7] };
        exits.add(Reason::Cli);
        exits.add(Reason::Cli);
        exits.add(Reason::Io); // the closing write
        assert_eq!(difference(&window, &exits, [("flush-all", 9), ("flush-page", 7)]), " cli=2 | flush-all=2");
    }
}
