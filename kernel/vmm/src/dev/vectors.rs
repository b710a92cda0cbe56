//! A set of interrupt vectors, as IRR, ISR and TMR of a local APIC are (SDM 3A 10.8.4): bit n of register n/32.

/// 256 bits, one a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vectors {
    words: [u32; 8],
}

impl Vectors {
    /// The 32 vectors of register `index`, as software reads them.
    pub(super) fn register(&self, index: usize) -> u32 {
        self.words.get(index).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn contains(&self, vector: u8) -> bool {
        self.register(usize::from(vector / 32)) & bit(vector) != 0
    }

    #[inline]
    pub(super) fn set(&mut self, vector: u8, on: bool) {
        if let Some(word) = self.words.get_mut(usize::from(vector / 32)) {
            if on { *word |= bit(vector) } else { *word &= !bit(vector) }
        }
    }

    /// The highest vector, which has the highest priority.
    #[inline]
    pub(super) fn highest(&self) -> Option<u8> {
        let (index, word) = self.words.iter().enumerate().rev().find(|&(_, &word)| word != 0)?;
        Some((index as u8).wrapping_mul(32).wrapping_add(word.ilog2() as u8))
    }
}

const fn bit(vector: u8) -> u32 {
    1 << (vector % 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_is_found() {
        let mut vectors = Vectors::default();
        assert_eq!(vectors.highest(), None);
        for vector in [0, 31, 32, 200, 255, 77] {
            vectors.set(vector, true);
        }
        for vector in [255, 200, 77, 32, 31, 0] {
            assert_eq!(vectors.highest(), Some(vector));
            assert!(vectors.contains(vector));
            vectors.set(vector, false);
            assert!(!vectors.contains(vector));
        }
        vectors.set(0x41, true);
        assert_eq!(vectors.register(2), 2);
    }
}
