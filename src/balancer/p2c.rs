//! Power of two choices: of two drawn by weight, the one with fewer sessions for its weight.
//!
//! Nearly as even as least connections, at a cost that does not grow with the endpoints, and without the crowd that
//! runs to one idle endpoint (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use super::Pool;
use super::chance::Draws;
use super::least_connections::Busy;
use super::lots::Lots;
use super::tried::Tried;

pub(super) struct Choices<'p, P> {
    lots: &'p Lots,
    weights: &'p [u32],
    draws: Draws,
    pool: P,
    tried: Tried,
}

impl<'p, P> Choices<'p, P> {
    pub(super) fn new(lots: &'p Lots, weights: &'p [u32], random: u64, pool: P) -> Choices<'p, P> {
        Choices { lots, weights, draws: Draws::new(random), pool, tried: Tried::default() }
    }
}

impl<P: Pool> Choices<'_, P> {
    fn busy(&self, index: usize) -> Busy {
        Busy::of(&self.pool, index, self.weights.get(index).copied().unwrap_or(1))
    }
}

impl<P: Pool> Iterator for Choices<'_, P> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let first = self.lots.draw(&mut self.draws, &self.tried, None)?;
        let second = self.lots.draw(&mut self.draws, &self.tried, Some(first));
        // The first of equals, so that endpoints without sessions get what they weigh.
        let choice = match second {
            Some(second) if self.busy(second).is_less_than(&self.busy(first)) => second,
            _ => first,
        };
        self.tried.add(choice);
        Some(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Still;
    use super::*;

    #[test]
    fn of_two_the_less_loaded_is_chosen() {
        let (weights, pool) = ([1, 1], Still::loaded(&[5, 4]));
        for random in 0..100 {
            let order: Vec<usize> = Choices::new(&Lots::new(&weights), &weights, random, &pool).collect();
            assert_eq!(order, [1, 0]);
        }
    }

    #[test]
    fn the_busiest_of_many_is_never_the_first_choice() {
        let weights = [1; 9];
        let pool = Still::loaded(&[1, 1, 1, 1, 9, 1, 1, 1, 1]);
        for random in 0..1_000 {
            let first = Choices::new(&Lots::new(&weights), &weights, random, &pool).next();
            assert_ne!(first, Some(4));
        }
    }
}
