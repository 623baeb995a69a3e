//! Weighted turns, spread as evenly as possible: weights 3 and 1 result in A A B A. Pure.
//!
//! The turns are computed when the endpoints change, so that a pick only reads a table. It needs no lock and no current weights,
//! unlike nginx's smooth weighted round robin.

use std::cmp::max;

use super::rng::Rng;

/// The maximum length of the table, unless there are more endpoints. Weights that do not fit are rounded, to at least one turn.
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
        // Turns that are due at the same moment follow the order of the endpoints.
        slots.sort_unstable_by_key(|(moment, index)| (*moment, *index));
        Schedule { slots: slots.into_iter().map(|(_, index)| index).collect() }
    }

    /// Returns the slot of a turn. Rounds repeat.
    pub(super) fn slot(&self, turn: u64) -> usize {
        let length = self.slots.len() as u64;
        turn.checked_rem(length).and_then(|slot| usize::try_from(slot).ok()).unwrap_or(0)
    }

    /// Returns a random slot.
    pub(super) fn slot_of(&self, rng: &mut Rng) -> usize {
        rng.index_below(self.slots.len())
    }

    /// Returns the endpoint of a slot. Slots wrap around.
    pub(super) fn at(&self, slot: usize) -> Option<usize> {
        let slot = slot.checked_rem(self.slots.len())?;
        self.slots.get(slot).map(|index| *index as usize)
    }
}

/// Returns when the `n`-th of `count` turns is due in a round of length 2^48: in the middle of the `n`-th of `count` parts.
fn moment(n: u64, count: u64) -> u64 {
    ((2 * n + 1) << 47) / max(count, 1)
}

/// Returns the number of turns of each endpoint in a round: its weight, divided by the greatest common divisor of all.
fn turns(weights: &[u32]) -> Vec<u64> {
    let divisor = max(weights.iter().fold(0, |divisor, weight| gcd(divisor, u64::from(*weight))), 1);
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight) / divisor).sum();
    let limit = max(SLOTS_MAX, weights.len() as u64);
    let scaled = |weight: u32| match u64::from(weight) / divisor {
        0 => 0,
        weight if sum <= limit => weight,
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
        assert_eq!(round(&[5, 5, 5]), [0, 1, 2], "weights are divided by their common divisor");
        assert_eq!(round(&[2, 1]), [0, 1, 0]);
        assert_eq!(round(&[4, 2]), [0, 1, 0]);
        assert_eq!(round(&[0, 3, 0, 1]), [1, 1, 3, 1]);
        assert_eq!(round(&[0]), [0usize; 0]);
        assert_eq!(round(&[]), [0usize; 0]);
    }

    #[test]
    fn table_stays_small_for_any_weights() {
        let schedule = Schedule::new(&[u32::MAX, u32::MAX - 1, 1, 0]);
        assert!(schedule.slots.len() as u64 <= SLOTS_MAX + 4, "{}", schedule.slots.len());
        assert!(schedule.slots.contains(&2), "the lightest keeps a turn");
        assert_eq!(Schedule::new(&vec![1; 100_000]).slots.len(), 100_000);
    }

    proptest! {
        #[test]
        fn every_run_of_slots_respects_the_weights(
            weights in prop::collection::vec(0u32..20, 1..12),
            start in 0usize..200,
            length in 1usize..300,
        ) {
            let schedule = Schedule::new(&weights);
            prop_assume!(!schedule.slots.is_empty());
            let sum: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let run = (start..start + length).filter_map(|slot| schedule.at(slot));
                let got = f64::from(u32::try_from(run.filter(|at| *at == index).count()).unwrap());
                let due = f64::from(*weight) / f64::from(sum) * f64::from(u32::try_from(length).unwrap());
                // It may be one turn off at either end.
                prop_assert!((got - due).abs() <= 2.0, "{index}: {got} of {due}");
            }
        }
    }
}
