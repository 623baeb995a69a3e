//! Drawing lots: each endpoint as likely as its weight says.

use super::chance::Draws;
use super::tried::Tried;

/// Draws that may hit what was tried before, until the endpoints are looked through one after the other. Where half of
/// all weight was tried, one in 65,000 picks gets there.
const DRAWS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Lots {
    /// Of those that have a weight.
    indices: Box<[u32]>,
    /// Of the weights up to and including each of `indices`.
    sums: Box<[u64]>,
}

impl Lots {
    pub(super) fn new(weights: &[u32]) -> Lots {
        let takers = (0u32..).zip(weights).filter(|(_, weight)| **weight > 0);
        let with_sum = |sum: &mut u64, (index, weight): (u32, &u32)| {
            *sum += u64::from(*weight);
            Some((index, *sum))
        };
        let (indices, sums): (Vec<_>, Vec<_>) = takers.scan(0, with_sum).unzip();
        Lots { indices: indices.into(), sums: sums.into() }
    }

    /// One that was not tried; `None` when there is none.
    pub(super) fn draw(&self, draws: &mut Draws, tried: &Tried, but: Option<usize>) -> Option<usize> {
        let total = self.sums.last()?;
        let fresh = |place: usize| {
            let index = self.indices.get(place).map(|index| *index as usize);
            index.filter(|index| !tried.has(*index) && but != Some(*index))
        };
        let mut place = 0;
        for _ in 0..DRAWS_MAX {
            let ticket = draws.below(*total);
            place = self.sums.partition_point(|sum| *sum <= ticket);
            if let Some(index) = fresh(place) {
                return Some(index);
            }
        }
        (place..self.sums.len()).chain(0..place).find_map(fresh)
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
