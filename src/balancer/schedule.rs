//! Weighted turns, spread as evenly as they can be: of weights 3 and 1 comes A A B A, and never A A A B B.
//!
//! The turns are written out once, when the endpoints change, so that taking one is a look at a table: no lock, and no
//! current weights to keep, as nginx's smooth round robin has them.

use std::cmp::max;

use super::chance::Draws;

/// The table's length, unless there are more endpoints. Weights that do not fit are rounded, none below one turn.
const SLOTS_MAX: u64 = 1 << 16;

#[derive(Debug)]
pub(super) struct Schedule {
    /// Indices of endpoints, in the order of their turns.
    slots: Box<[u32]>,
}

impl Schedule {
    pub(super) fn new(weights: &[u32]) -> Schedule {
        let turns = turns(weights);
        let mut slots: Vec<(u64, u32)> = Vec::new();
        for (index, count) in (0u32..).zip(&turns) {
            slots.extend((0..*count).map(|n| (moment(n, *count), index)));
        }
        // At one moment, those with fewer turns come last, and equals in their own order.
        slots.sort_by_key(|(moment, index)| (*moment, *index));
        Schedule { slots: slots.into_iter().map(|(_, index)| index).collect() }
    }

    /// The slot of this turn; whole rounds follow one another.
    pub(super) fn slot(&self, turn: u64) -> usize {
        let length = self.slots.len() as u64;
        turn.checked_rem(length).and_then(|slot| usize::try_from(slot).ok()).unwrap_or(0)
    }

    /// Any, each as likely as another.
    pub(super) fn slot_of(&self, draws: &mut Draws) -> usize {
        draws.place(self.slots.len())
    }

    /// Whose turn it is in this slot; slots go round.
    pub(super) fn at(&self, slot: usize) -> Option<usize> {
        let slot = slot.checked_rem(self.slots.len())?;
        self.slots.get(slot).map(|index| *index as usize)
    }
}

/// When the `n`-th of `count` turns is due, in a round of length 2^48: in the middle of its `count`-th part.
fn moment(n: u64, count: u64) -> u64 {
    ((2 * n + 1) << 47) / max(count, 1)
}

/// How often each has its turn in a round: its weight, without what all weights have in common.
fn turns(weights: &[u32]) -> Vec<u64> {
    let divisor = max(weights.iter().fold(0, |divisor, weight| gcd(divisor, u64::from(*weight))), 1);
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight) / divisor).sum();
    let room = max(SLOTS_MAX, weights.len() as u64);
    let scaled = |weight: u32| match u64::from(weight) / divisor {
        0 => 0,
        weight if sum <= room => weight,
        weight => max(u128::from(weight) * u128::from(SLOTS_MAX) / u128::from(sum), 1)
            .try_into()
            .unwrap_or(SLOTS_MAX),
    };
    weights.iter().map(|weight| scaled(*weight)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(weights: &[u32]) -> Vec<usize> {
        let schedule = Schedule::new(weights);
        (0..schedule.slots.len()).filter_map(|slot| schedule.at(slot)).collect()
    }

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(round(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(round(&[5, 5, 5]), [0, 1, 2], "what all have in common is left out");
        assert_eq!(round(&[2, 1]), [0, 1, 0]);
        assert_eq!(round(&[4, 2]), [0, 1, 0]);
        assert_eq!(round(&[0, 3, 0, 1]), [1, 1, 3, 1]);
        assert_eq!(round(&[0]), [0usize; 0]);
        assert_eq!(round(&[]), [0usize; 0]);
    }

    #[test]
    fn a_table_stays_small_whatever_the_weights() {
        let schedule = Schedule::new(&[u32::MAX, u32::MAX - 1, 1, 0]);
        assert!(schedule.slots.len() as u64 <= SLOTS_MAX + 4, "{}", schedule.slots.len());
        assert!(schedule.slots.contains(&2), "the lightest has a turn still");
        assert_eq!(Schedule::new(&vec![1; 100_000]).slots.len(), 100_000);
    }

    proptest! {
        /// In any run of slots, no endpoint is further than one turn and a half from its due share.
        #[test]
        fn every_stretch_respects_the_weights(
            weights in prop::collection::vec(0u32..20, 1..12),
            start in 0usize..200,
            length in 1usize..300,
        ) {
            let schedule = Schedule::new(&weights);
            prop_assume!(!schedule.slots.is_empty());
            let sum: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let stretch = (start..start + length).filter_map(|slot| schedule.at(slot));
                let got = f64::from(u32::try_from(stretch.filter(|at| *at == index).count()).unwrap());
                let due = f64::from(*weight) / f64::from(sum) * f64::from(u32::try_from(length).unwrap());
                // A stretch has two ends, and at each it may be one turn off.
                prop_assert!((got - due).abs() <= 2.0, "{index}: {got} of {due}");
            }
        }
    }
}
