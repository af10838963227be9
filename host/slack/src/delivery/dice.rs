//! Chance, so that what failed together is not tried again together. Seeded, so that a test can be run again.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of numbers that nobody needs to be unable to guess.
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Dice {
    /// Dice that fall otherwise each time.
    pub(super) fn random() -> Dice {
        Dice::seeded(getrandom::u64().unwrap_or(1))
    }

    /// Dice that fall as they did the last time.
    pub(super) fn seeded(seed: u64) -> Dice {
        Dice(AtomicU64::new(seed))
    }

    /// Any number below `bound`, or 0.
    pub(super) fn below(&self, bound: u64) -> u64 {
        // SplitMix64.
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        mixed.checked_rem(bound).unwrap_or(0)
    }

    /// A number about `middle`: from three quarters of it to five.
    pub(super) fn around(&self, middle: u64) -> u64 {
        middle - middle / 4 + self.below(middle / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_fall_within_their_bounds() {
        let dice = Dice::seeded(7);
        let mut seen = [false; 6];
        for _ in 0..1000 {
            seen[usize::try_from(dice.below(6)).unwrap()] = true;
            let about = dice.around(1000);
            assert!((750..=1250).contains(&about), "{about}");
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!((dice.below(0), dice.below(1), dice.around(0)), (0, 0, 0));
    }
}
