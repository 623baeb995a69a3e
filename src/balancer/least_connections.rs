//! Least connections: the endpoint with the fewest sessions for its weight; among equals everyone in turn.

use super::Pool;
use super::schedule::Schedule;
use super::tried::Tried;

pub(super) struct Choices<'p, P> {
    weights: &'p [u32],
    start: usize,
    pool: P,
    tried: Tried,
}

impl<'p, P> Choices<'p, P> {
    pub(super) fn new(turns: &Schedule, weights: &'p [u32], turn: u64, pool: P) -> Choices<'p, P> {
        let start = turns.at(turns.slot(turn)).unwrap_or(0);
        Choices { weights, start, pool, tried: Tried::default() }
    }
}

impl<P: Pool> Iterator for Choices<'_, P> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let mut best: Option<(usize, Busy)> = None;
        for index in (self.start..self.weights.len()).chain(0..self.start) {
            let weight = self.weights.get(index).copied().unwrap_or(0);
            if weight == 0 || self.tried.has(index) {
                continue;
            }
            let busy = Busy::of(&self.pool, index, weight);
            // The first of equals stays.
            if best.as_ref().is_none_or(|(_, least)| busy.is_less_than(least)) {
                let idle = busy.load == 0;
                best = Some((index, busy));
                if idle {
                    break;
                }
            }
        }
        let (choice, _) = best?;
        self.tried.add(choice);
        Some(choice)
    }
}

/// Sessions for each unit of weight, as a fraction.
pub(super) struct Busy {
    load: usize,
    capacity: u64,
}

impl Busy {
    /// `weight` is not zero.
    pub(super) fn of(pool: &impl Pool, index: usize, weight: u32) -> Busy {
        // A cold endpoint is worth a part of its weight, but never nothing.
        let warmth = u64::from(pool.warmth(index).max(1));
        Busy { load: pool.load(index), capacity: u64::from(weight) * warmth }
    }

    pub(super) fn is_less_than(&self, other: &Busy) -> bool {
        let scaled = |load: usize, by: u64| load as u128 * u128::from(by);
        scaled(self.load, other.capacity) < scaled(other.load, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Still;
    use super::*;

    fn order(turn: u64, weights: &[u32], loads: &[usize]) -> Vec<usize> {
        let pool = Still::loaded(loads);
        Choices::new(&Schedule::new(weights), weights, turn, &pool).collect()
    }

    #[test]
    fn the_least_loaded_comes_first_and_equals_take_turns() {
        assert_eq!(order(0, &[1, 1, 1], &[3, 1, 2]), [1, 2, 0]);
        assert_eq!(order(0, &[1, 1, 1], &[1, 1, 1]), [0, 1, 2]);
        assert_eq!(order(2, &[1, 1, 1], &[1, 1, 1]), [2, 0, 1]);
        assert_eq!(order(1, &[1, 1, 1], &[0, 5, 0]), [2, 0, 1]);
        assert_eq!(order(9, &[], &[]), [0usize; 0]);
    }

    #[test]
    fn sessions_count_for_what_they_weigh() {
        assert_eq!(order(0, &[1, 4], &[1, 3])[0], 1);
        assert_eq!(order(0, &[1, 4], &[1, 5])[0], 0);
        assert_eq!(order(0, &[1, 0], &[9, 0]), [0], "weight zero takes none");
        let first = [0, 1, 2, 3].map(|turn| order(turn, &[3, 1], &[0, 0])[0]);
        assert_eq!(first, [0, 0, 1, 0], "idle ones take weighted turns");
    }

    #[test]
    fn a_cold_endpoint_is_worth_a_part_of_its_weight() {
        let pool = Still { loads: vec![10, 1], warmth: vec![1000, 50] };
        let weights = [1, 1];
        let mut choices = Choices::new(&Schedule::new(&weights), &weights, 0, &pool);
        assert_eq!(choices.next(), Some(0), "1 session at a twentieth is as 20");
    }
}
