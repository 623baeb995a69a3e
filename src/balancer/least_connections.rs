//! Least connections: the endpoint with the fewest sessions for its weight; among equals everyone in turn.
//!
//! Of many endpoints only some are looked at, drawn by weight, so that a pick costs the same however many there are: how
//! good the least of 64 is, the tests below say.

use super::Pool;
use super::chance::Draws;
use super::round_robin;
use super::schedule::Schedule;
use super::tried::Tried;

/// Endpoints looked at for one choice. Up to here it is exact. With half as many, a fifth of all new sessions would miss the
/// one endpoint in twenty that is empty; with these, one in twenty-five does.
pub(super) const LOOKED_AT_MAX: usize = 64;

/// The least of all; of equals the one that comes first from `start` on.
pub(super) fn of_all(
    takers: &[u32],
    start: usize,
    weights: &[u32],
    pool: &impl Pool,
    tried: &Tried,
) -> Option<usize> {
    let (before, from) = takers.split_at(takers.partition_point(|index| (*index as usize) < start));
    let all = from.iter().chain(before).map(|index| *index as usize);
    least(all, weights, pool, tried)
}

/// The least of some: of the one whose turn it is, and of others that are drawn.
pub(super) fn of_some(
    turns: &Schedule,
    turn: u64,
    draws: &mut Draws,
    weights: &[u32],
    pool: &impl Pool,
    tried: &Tried,
) -> Option<usize> {
    let first = turns.at(turns.slot(turn));
    let others = std::iter::repeat_with(|| turns.at(turns.slot_of(draws)));
    let some = first.into_iter().chain(others.take(LOOKED_AT_MAX - 1).flatten());
    least(some, weights, pool, tried).or_else(|| round_robin::choice(turns, tried, &mut turns.slot(turn)))
}

fn least(
    indices: impl Iterator<Item = usize>,
    weights: &[u32],
    pool: &impl Pool,
    tried: &Tried,
) -> Option<usize> {
    let mut best: Option<(usize, Busy)> = None;
    for index in indices.filter(|index| !tried.has(*index)) {
        let busy = Busy::of(pool, index, weights);
        // The first of equals stays.
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

/// Sessions for each unit of weight, as a fraction.
pub(super) struct Busy {
    load: usize,
    capacity: u64,
}

impl Busy {
    pub(super) fn of(pool: &impl Pool, index: usize, weights: &[u32]) -> Busy {
        let weight = weights.get(index).copied().unwrap_or(1);
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
    use super::super::WARM;
    use super::super::tests::{Growing, Still, order_of, pick, plan};
    use super::*;
    use crate::route::Balance::LeastConnections;

    fn order(turn: u64, weights: &[u32], loads: &[usize]) -> Vec<usize> {
        order_of(LeastConnections, weights, turn, loads)
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
        let choice = of_all(&[0, 1], 0, &weights, &&pool, &Tried::default());
        assert_eq!(choice, Some(0), "1 session at a twentieth is as 20");
    }

    /// Exact is 11 at most, where half the endpoints have 10 sessions and half have 11.
    #[test]
    fn while_sessions_come_and_go_the_busiest_of_many_has_one_more_than_it_must() {
        for (count, most) in [(64, 11), (1_000, 12)] {
            let mut draws = Draws::new(3);
            let (plan, pool) = (plan(LeastConnections, &vec![1; count]), Growing::from(vec![0; count]));
            let mut sessions = Vec::new();
            for turn in 0..60 * count as u64 {
                if 2 * sessions.len() > 21 * count {
                    let ended = sessions.swap_remove(draws.place(sessions.len()));
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
    fn of_ten_thousand_those_that_are_new_get_nearly_all_sessions_until_they_are_level() {
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
    fn idle_ones_of_many_take_weighted_turns() {
        let (weights, pool) = ([1; 100], Still { loads: vec![0; 100], warmth: vec![WARM; 100] });
        let plan = plan(LeastConnections, &weights);
        let firsts: Vec<_> =
            (0..100).filter_map(|turn| plan.choices(pick(turn), &pool).next_of(&pool)).collect();
        assert_eq!(firsts, (0..100).collect::<Vec<_>>());
    }
}
