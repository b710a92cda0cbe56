//! The ring that holds records until somebody drains them.

use crate::{Kind, Record};

/// A ring of the last `N` records. When it is full, the oldest is overwritten and counted as lost.
#[derive(Debug)]
pub struct Ring<const N: usize> {
    records: [Record; N],
    /// Records ever pushed; the next goes to `pushed % N`.
    pushed: u64,
    /// Records ever drained or lost.
    taken: u64,
}

impl<const N: usize> Ring<N> {
    /// An empty ring.
    #[must_use]
    pub const fn new() -> Self {
        Self { records: [Record::new(Kind::Lost); N], pushed: 0, taken: 0 }
    }

    /// Adds a record.
    #[inline]
    pub fn push(&mut self, record: Record) {
        let slot = (self.pushed % N as u64) as usize;
        if let Some(place) = self.records.get_mut(slot) {
            *place = record;
        }
        self.pushed = self.pushed.wrapping_add(1);
    }

    /// Records waiting, lost ones not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.pushed - self.taken).min(N as u64) as usize
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pushed == self.taken
    }

    /// Whether the next push overwrites a record that nobody has seen.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pushed - self.taken >= N as u64
    }

    /// Takes the oldest record that is still there. A gap of overwritten ones comes first, as one [`Kind::Lost`] record.
    pub fn pop(&mut self) -> Option<Record> {
        let waiting = self.pushed - self.taken;
        if waiting > N as u64 {
            let lost = waiting - N as u64;
            self.taken += lost;
            return Some(Record { a: lost, ..Record::new(Kind::Lost) });
        }
        if waiting == 0 {
            return None;
        }
        let slot = (self.taken % N as u64) as usize;
        self.taken += 1;
        self.records.get(slot).copied()
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(a: u64) -> Record {
        Record { a, ..Record::new(Kind::Walk) }
    }

    #[test]
    fn keeps_order_and_reports_what_was_lost() {
        let mut ring = Ring::<4>::new();
        for a in 0..6 {
            ring.push(record(a));
        }
        assert!(ring.is_full());
        assert_eq!(ring.pop(), Some(Record { a: 2, ..Record::new(Kind::Lost) }));
        for a in 2..6 {
            assert_eq!(ring.pop(), Some(record(a)));
        }
        assert_eq!(ring.pop(), None);
        assert!(ring.is_empty());
    }
}
