//! Drawing lots: each endpoint as likely as its weight says.

use super::chance::Draws;
use super::tried::Tried;

/// Draws that may hit what was tried before, until the endpoints are looked through one after the other. Where half of
/// all weight was tried, one in 65,000 picks gets there.
const DRAWS_MAX: usize = 16;

#[derive(Debug)]
pub struct Lots {
    /// Of the weights up to and including each.
    sums: Box<[u64]>,
}

impl Lots {
    pub(super) fn new(weights: &[u32]) -> Lots {
        let sum = |sum: &mut u64, weight: &u32| {
            *sum += u64::from(*weight);
            Some(*sum)
        };
        Lots { sums: weights.iter().scan(0, sum).collect() }
    }

    /// One that was not tried; `None` when there is none.
    pub(super) fn draw(&self, draws: &mut Draws, tried: &Tried, but: Option<usize>) -> Option<usize> {
        let total = self.sums.last().copied().filter(|total| *total > 0)?;
        let fresh = |index: &usize| !tried.has(*index) && but != Some(*index);
        let mut drawn = 0;
        for _ in 0..DRAWS_MAX {
            let ticket = draws.below(total);
            drawn = self.sums.partition_point(|sum| *sum <= ticket);
            if fresh(&drawn) {
                return Some(drawn);
            }
        }
        let mut others = (drawn..self.sums.len()).chain(0..drawn);
        others.find(|index| self.has_weight(*index) && fresh(index))
    }

    fn has_weight(&self, index: usize) -> bool {
        let before = index.checked_sub(1).and_then(|before| self.sums.get(before)).copied().unwrap_or(0);
        self.sums.get(index).is_some_and(|sum| *sum > before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_drawn_as_often_as_it_weighs_and_zero_never() {
        let lots = Lots::new(&[0, 1, 0, 3, 0]);
        let mut draws = Draws::new(1);
        let mut counts = [0u32; 5];
        for _ in 0..40_000 {
            counts[lots.draw(&mut draws, &Tried::default(), None).unwrap()] += 1;
        }
        assert_eq!((counts[0], counts[2], counts[4]), (0, 0, 0));
        assert!((9_500..10_500).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn the_lightest_is_found_behind_the_heaviest() {
        let lots = Lots::new(&[0, 1, u32::MAX]);
        let mut tried = Tried::default();
        tried.add(2);
        assert_eq!(lots.draw(&mut Draws::new(3), &tried, None), Some(1));
        assert_eq!(lots.draw(&mut Draws::new(3), &tried, Some(1)), None);
        assert_eq!(Lots::new(&[]).draw(&mut Draws::new(3), &tried, None), None);
    }
}
