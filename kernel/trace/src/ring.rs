//! The ring that holds records until somebody drains them.

use alloc::vec;
use alloc::vec::Vec;

use crate::{Kind, Record};

/// A ring of the last records. When it is full, the oldest is overwritten and counted as lost.
#[derive(Debug)]
pub struct Ring {
    records: Vec<Record>,
    /// Records ever pushed; the next goes to `pushed % capacity`.
    pushed: u64,
    /// Records ever drained or lost.
    taken: u64,
}

impl Ring {
    /// An empty ring that holds `capacity` records, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { records: vec![Record::new(Kind::Lost); capacity.max(1)], pushed: 0, taken: 0 }
    }

    fn capacity(&self) -> u64 {
        self.records.len() as u64
    }

    /// Adds a record.
    #[inline]
    pub fn push(&mut self, record: Record) {
        let slot = (self.pushed % self.capacity()) as usize;
        if let Some(place) = self.records.get_mut(slot) {
            *place = record;
        }
        self.pushed = self.pushed.wrapping_add(1);
    }

    /// Records waiting, lost ones not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.pushed - self.taken).min(self.capacity()) as usize
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pushed == self.taken
    }

    /// Whether the next push overwrites a record that nobody has seen.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pushed - self.taken >= self.capacity()
    }

    /// Takes the oldest record that is still there. A gap of overwritten ones comes first, as one [`Kind::Lost`] record.
    pub fn pop(&mut self) -> Option<Record> {
        let waiting = self.pushed - self.taken;
        if waiting > self.capacity() {
            let lost = waiting - self.capacity();
            self.taken += lost;
            return Some(Record { a: lost, ..Record::new(Kind::Lost) });
        }
        if waiting == 0 {
            return None;
        }
        let slot = (self.taken % self.capacity()) as usize;
        self.taken += 1;
        self.records.get(slot).copied()
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
        let mut ring = Ring::new(4);
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
