//! Power of two choices: of two endpoints drawn by weight, the one with fewer sessions for its weight. Pure.
//!
//! Nearly as even as least connections, at a cost that does not grow with the number of endpoints, and without sending a burst
//! of sessions to a single idle endpoint (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use super::Pool;
use super::least_connections::Busy;
use super::rng::Rng;
use super::tried::Tried;
use super::weighted::Weighted;

pub(super) fn choice(
    weighted: &Weighted,
    rng: &mut Rng,
    weights: &[u32],
    pool: &impl Pool,
    tried: &Tried,
) -> Option<usize> {
    let first = weighted.sample(rng, tried, None)?;
    let second = weighted.sample(rng, tried, Some(first));
    let busy = |index| Busy::of(pool, index, weights);
    // The first of equals, so that idle endpoints get sessions by weight.
    Some(second.filter(|second| busy(*second).is_less_than(&busy(first))).unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Constant, order_of};
    use super::*;
    use crate::route::Balance::P2c;

    #[test]
    fn less_loaded_of_two_is_chosen() {
        for turn in 0..100 {
            assert_eq!(order_of(P2c, &[1, 1], turn, &[5, 4]), [1, 0]);
        }
    }

    #[test]
    fn busiest_of_many_is_never_the_first_choice() {
        let weights = [1; 9];
        let pool = Constant::loaded(&[1, 1, 1, 1, 9, 1, 1, 1, 1]);
        for random in 0..1_000 {
            let rng = &mut Rng::new(random);
            assert_ne!(choice(&Weighted::new(&weights), rng, &weights, &&pool, &Tried::default()), Some(4));
        }
    }
}
