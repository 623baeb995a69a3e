//! Power of two choices: of two drawn by weight, the one with fewer sessions for its weight.
//!
//! Nearly as even as least connections, at a cost that does not grow with the endpoints, and without the crowd that
//! runs to one idle endpoint (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use super::Pool;
use super::chance::Draws;
use super::least_connections::Busy;
use super::lots::Lots;
use super::tried::Tried;

pub(super) fn choice(
    lots: &Lots,
    draws: &mut Draws,
    weights: &[u32],
    pool: &impl Pool,
    tried: &Tried,
) -> Option<usize> {
    let first = lots.draw(draws, tried, None)?;
    let second = lots.draw(draws, tried, Some(first));
    let busy = |index| Busy::of(pool, index, weights);
    // The first of equals, so that endpoints without sessions get what they weigh.
    Some(second.filter(|second| busy(*second).is_less_than(&busy(first))).unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Still, order_of};
    use super::*;
    use crate::route::Balance::P2c;

    #[test]
    fn of_two_the_less_loaded_is_chosen() {
        for turn in 0..100 {
            assert_eq!(order_of(P2c, &[1, 1], turn, &[5, 4]), [1, 0]);
        }
    }

    #[test]
    fn the_busiest_of_many_is_never_the_first_choice() {
        let weights = [1; 9];
        let pool = Still::loaded(&[1, 1, 1, 1, 9, 1, 1, 1, 1]);
        for random in 0..1_000 {
            let draws = &mut Draws::new(random);
            assert_ne!(choice(&Lots::new(&weights), draws, &weights, &&pool, &Tried::default()), Some(4));
        }
    }
}
