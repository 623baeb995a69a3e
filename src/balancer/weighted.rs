//! Random selection in proportion to weights, by a binary search in their prefix sums. Pure.

use super::rng::Rng;
use super::tried::Tried;

/// The number of samples that may hit an endpoint that was tried, before the rest are searched one by one. Where half of the
/// weight was tried, one pick in 65,000 gets there.
const SAMPLES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Weighted {
    /// The endpoints whose weight is not zero.
    indices: Box<[u32]>,
    /// The sums of the weights up to and including each of `indices`.
    sums: Box<[u64]>,
}

impl Weighted {
    pub(super) fn new(weights: &[u32]) -> Weighted {
        let eligible = (0u32..).zip(weights).filter(|(_, weight)| **weight > 0);
        let with_sum = |sum: &mut u64, (index, weight): (u32, &u32)| {
            *sum += u64::from(*weight);
            Some((index, *sum))
        };
        let (indices, sums): (Vec<_>, Vec<_>) = eligible.scan(0, with_sum).unzip();
        Weighted { indices: indices.into(), sums: sums.into() }
    }

    /// Returns a random endpoint that was not tried and is not `excluded`, or `None` if there is none.
    pub(super) fn sample(&self, rng: &mut Rng, tried: &Tried, excluded: Option<usize>) -> Option<usize> {
        let total = self.sums.last()?;
        let untried = |position: usize| {
            let index = self.indices.get(position).map(|index| *index as usize);
            index.filter(|index| !tried.contains(*index) && excluded != Some(*index))
        };
        let mut position = 0;
        for _ in 0..SAMPLES_MAX {
            let point = rng.below(*total);
            position = self.sums.partition_point(|sum| *sum <= point);
            if let Some(index) = untried(position) {
                return Some(index);
            }
        }
        (position..self.sums.len()).chain(0..position).find_map(untried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sampled_in_proportion_to_weight_and_zero_never() {
        let weighted = Weighted::new(&[0, 1, 0, 3, 0]);
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 5];
        for _ in 0..40_000 {
            counts[weighted.sample(&mut rng, &Tried::default(), None).unwrap()] += 1;
        }
        assert_eq!((counts[0], counts[2], counts[4]), (0, 0, 0));
        assert!((9_500..10_500).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn lightest_endpoint_is_found_beside_the_heaviest() {
        let weighted = Weighted::new(&[0, 1, u32::MAX]);
        let mut tried = Tried::default();
        tried.add(2);
        assert_eq!(weighted.sample(&mut Rng::new(3), &tried, None), Some(1));
        assert_eq!(weighted.sample(&mut Rng::new(3), &tried, Some(1)), None);
        assert_eq!(Weighted::new(&[]).sample(&mut Rng::new(3), &tried, None), None);
    }
}
