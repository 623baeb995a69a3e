//! Least connections: the endpoint with the fewest sessions for its weight. Equal endpoints take turns. Pure.
//!
//! Of many endpoints only a random sample, drawn by weight, is compared, so that the cost of a pick does not grow with their
//! number. The tests below show how close the least of 64 is to the least of all.

use super::Pool;
use super::rng::Rng;
use super::round_robin;
use super::schedule::Schedule;
use super::tried::Tried;

/// The number of endpoints compared for one choice. Up to that many the choice is exact. If one endpoint in twenty is idle, one
/// new session in twenty-five misses all idle ones; with half the sample it would be one in five.
pub(super) const SAMPLE_MAX: usize = 64;

/// Returns the least loaded of all; among equals the first one from `start` on.
pub(super) fn of_all(
    eligible: &[u32],
    start: usize,
    weights: &[u32],
    pool: &impl Pool,
    tried: &Tried,
) -> Option<usize> {
    let (before, from) = eligible.split_at(eligible.partition_point(|index| (*index as usize) < start));
    let all = from.iter().chain(before).map(|index| *index as usize);
    least(all, weights, pool, tried)
}

/// Returns the least loaded of a sample: the endpoint whose turn it is, and random others.
pub(super) fn of_sample(
    schedule: &Schedule,
    turn: u64,
    rng: &mut Rng,
    weights: &[u32],
    pool: &impl Pool,
    tried: &Tried,
) -> Option<usize> {
    let first = schedule.at(schedule.slot(turn));
    let others = std::iter::repeat_with(|| schedule.at(schedule.slot_of(rng)));
    let sample = first.into_iter().chain(others.take(SAMPLE_MAX - 1).flatten());
    least(sample, weights, pool, tried)
        .or_else(|| round_robin::choice(schedule, tried, &mut schedule.slot(turn)))
}

fn least(
    indices: impl Iterator<Item = usize>,
    weights: &[u32],
    pool: &impl Pool,
    tried: &Tried,
) -> Option<usize> {
    let mut best: Option<(usize, Busy)> = None;
    for index in indices.filter(|index| !tried.contains(*index)) {
        let busy = Busy::of(pool, index, weights);
        // Among equals the first one wins.
        if best.as_ref().is_none_or(|(_, least)| busy.is_less_than(least)) {
            let idle = busy.load == 0;
            best = Some((index, busy));
            if idle {
                break;
            }
        }
    }
    best.map(|(index, _)| index)
}

/// Sessions per unit of weight, as a fraction.
pub(super) struct Busy {
    load: usize,
    capacity: u64,
}

impl Busy {
    pub(super) fn of(pool: &impl Pool, index: usize, weights: &[u32]) -> Busy {
        let weight = weights.get(index).copied().unwrap_or(1);
        // A cold endpoint counts with a part of its weight, at least the smallest one.
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
    use super::super::WARM;
    use super::super::tests::{Constant, Growing, order_of, pick, plan};
    use super::*;
    use crate::route::Balance::LeastConnections;

    fn order(turn: u64, weights: &[u32], loads: &[usize]) -> Vec<usize> {
        order_of(LeastConnections, weights, turn, loads)
    }

    #[test]
    fn least_loaded_is_first_and_equals_take_turns() {
        assert_eq!(order(0, &[1, 1, 1], &[3, 1, 2]), [1, 2, 0]);
        assert_eq!(order(0, &[1, 1, 1], &[1, 1, 1]), [0, 1, 2]);
        assert_eq!(order(2, &[1, 1, 1], &[1, 1, 1]), [2, 0, 1]);
        assert_eq!(order(1, &[1, 1, 1], &[0, 5, 0]), [2, 0, 1]);
        assert_eq!(order(9, &[], &[]), [0usize; 0]);
    }

    #[test]
    fn load_is_relative_to_weight() {
        assert_eq!(order(0, &[1, 4], &[1, 3])[0], 1);
        assert_eq!(order(0, &[1, 4], &[1, 5])[0], 0);
        assert_eq!(order(0, &[1, 0], &[9, 0]), [0], "an endpoint of weight zero is never chosen");
        let first = [0, 1, 2, 3].map(|turn| order(turn, &[3, 1], &[0, 0])[0]);
        assert_eq!(first, [0, 0, 1, 0], "idle endpoints take weighted turns");
    }

    #[test]
    fn cold_endpoint_counts_with_a_part_of_its_weight() {
        let pool = Constant { loads: vec![10, 1], warmth: vec![1000, 50] };
        let weights = [1, 1];
        let choice = of_all(&[0, 1], 0, &weights, &&pool, &Tried::default());
        assert_eq!(choice, Some(0), "one session at a twentieth of the weight equals 20");
    }

    /// An exact choice would give at most 11, with 10 sessions on one half of the endpoints and 11 on the other.
    #[test]
    fn busiest_of_many_has_one_session_more_than_with_an_exact_choice() {
        for (count, most) in [(64, 11), (1_000, 12)] {
            let mut rng = Rng::new(3);
            let (plan, pool) = (plan(LeastConnections, &vec![1; count]), Growing::from(vec![0; count]));
            let mut sessions = Vec::new();
            for turn in 0..60 * count as u64 {
                if 2 * sessions.len() > 21 * count {
                    let ended = sessions.swap_remove(rng.index_below(sessions.len()));
                    pool.0.borrow_mut()[ended] -= 1;
                }
                let choice = plan.choices(pick(turn), &pool).next_of(&pool).unwrap();
                pool.0.borrow_mut()[choice] += 1;
                sessions.push(choice);
                assert!(pool.0.borrow()[choice] <= most, "{choice} of {count}");
            }
        }
    }

    #[test]
    fn new_endpoints_among_ten_thousand_get_nearly_all_sessions_until_they_are_level() {
        let mut before = vec![10; 9_500];
        before.resize(10_000, 0);
        let (plan, pool) = (plan(LeastConnections, &[1; 10_000]), Growing::from(before));
        for turn in 0..2_500 {
            let first = plan.choices(pick(turn), &pool).next_of(&pool).unwrap();
            pool.0.borrow_mut()[first] += 1;
        }
        let loads = pool.0.into_inner();
        let to_new: usize = loads.iter().skip(9_500).sum();
        assert!(to_new > 2_300, "{to_new}");
        assert!(loads.iter().all(|load| *load <= 11));
    }

    #[test]
    fn idle_endpoints_of_many_take_weighted_turns() {
        let (weights, pool) = ([1; 100], Constant { loads: vec![0; 100], warmth: vec![WARM; 100] });
        let plan = plan(LeastConnections, &weights);
        let firsts: Vec<_> =
            (0..100).filter_map(|turn| plan.choices(pick(turn), &pool).next_of(&pool)).collect();
        assert_eq!(firsts, (0..100).collect::<Vec<_>>());
    }
}
