//! Properties that all algorithms share.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::rng::nth;
use super::*;

/// Endpoints whose load is constant.
#[derive(Default)]
pub(super) struct Constant {
    pub(super) loads: Vec<usize>,
    /// Endpoints without an entry are warm.
    pub(super) warmth: Vec<u32>,
}

impl Constant {
    pub(super) fn loaded(loads: &[usize]) -> Constant {
        Constant { loads: loads.to_vec(), warmth: Vec::new() }
    }
}

impl Pool for &Constant {
    fn load(&self, index: usize) -> usize {
        self.loads[index]
    }

    fn warmth(&self, index: usize) -> u32 {
        self.warmth.get(index).copied().unwrap_or(WARM)
    }
}

/// Endpoints whose sessions never end.
pub(super) struct Growing(pub(super) RefCell<Vec<usize>>);

impl From<Vec<usize>> for Growing {
    fn from(loads: Vec<usize>) -> Growing {
        Growing(RefCell::new(loads))
    }
}

impl Pool for &Growing {
    fn load(&self, index: usize) -> usize {
        self.0.borrow()[index]
    }

    fn warmth(&self, _: usize) -> u32 {
        WARM
    }
}

pub(super) fn plan(balance: Balance, weights: &[u32]) -> Plan {
    Plan::new(balance, weights.into(), (0..weights.len()).map(|n| format!("10.0.0.1:{n}")))
}

/// Returns all choices of one turn, with warm endpoints.
pub(super) fn order_of(balance: Balance, weights: &[u32], turn: u64, loads: &[usize]) -> Vec<usize> {
    order(&plan(balance, weights), pick(turn), &Constant::loaded(loads))
}

pub(super) fn pick(turn: u64) -> Pick {
    let [a, b, c, d, ..] = nth(9, turn).to_be_bytes();
    Pick { turn, random: nth(3, turn), client: Some([a, b, c, d].into()) }
}

fn order<P: Pool + Copy>(plan: &Plan, pick: Pick, pool: P) -> Vec<usize> {
    let mut choices = plan.choices(pick, pool);
    std::iter::from_fn(|| choices.next_of(pool)).collect()
}

proptest! {
    #[test]
    fn every_endpoint_with_a_weight_is_yielded_once(
        which in 0..Balance::ALL.len(),
        turn: u64,
        endpoints in prop::collection::vec((0usize..5, 0u32..4, 0u32..=WARM), 0..20),
    ) {
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight, _)| *weight).collect();
        let pool = Constant {
            loads: endpoints.iter().map(|(load, ..)| *load).collect(),
            warmth: endpoints.iter().map(|(.., warmth)| *warmth).collect(),
        };
        let mut order = order(&plan(Balance::ALL[which], &weights), pick(turn), &pool);
        order.sort_unstable();
        let eligible: Vec<usize> = (0..weights.len()).filter(|n| weights[*n] > 0).collect();
        prop_assert_eq!(order, eligible);
    }
}

/// With sessions that never end, for algorithms that compare loads.
#[test]
fn every_algorithm_respects_the_weights() {
    let weights = [4, 0, 1, 3];
    for balance in Balance::ALL {
        let (plan, pool) = (plan(balance, &weights), Growing(RefCell::new(vec![0; 4])));
        for turn in 0..8_000 {
            let first = plan.choices(pick(turn), &pool).next_of(&pool).unwrap();
            pool.0.borrow_mut()[first] += 1;
        }
        for (got, weight) in pool.0.borrow().iter().zip(weights) {
            let due = weight as usize * 1_000;
            assert!(got.abs_diff(due) < 200, "{balance:?}: {got} of {due}");
        }
    }
}

#[test]
fn every_algorithm_respects_the_weights_of_idle_endpoints() {
    let (weights, pool) = ([4, 0, 1, 3], Constant::loaded(&[0; 4]));
    for balance in Balance::ALL {
        let plan = plan(balance, &weights);
        let mut counts = [0usize; 4];
        for turn in 0..8_000 {
            counts[plan.choices(pick(turn), &pool).next_of(&pool).unwrap()] += 1;
        }
        for (got, weight) in counts.iter().zip(weights) {
            let due = weight as usize * 1_000;
            assert!(got.abs_diff(due) < 200, "{balance:?}: {counts:?}");
        }
    }
}

#[test]
fn client_moves_to_a_warming_endpoint_at_most_once() {
    let plan = plan(Balance::SourceHash, &[1, 1]);
    for client in 0..500 {
        let moves = (0..=WARM).map(|warmth| {
            let pool = Constant { loads: vec![0, 0], warmth: vec![WARM, warmth] };
            plan.choices(pick(client), &pool).next_of(&pool)
        });
        let moves: Vec<_> = moves.collect();
        assert!(moves.windows(2).filter(|two| two[0] != two[1]).count() <= 1);
    }
}

#[test]
fn sessions_without_a_client_address_are_distributed() {
    let plan = plan(Balance::SourceHash, &[1, 1]);
    let pool = Constant::loaded(&[0, 0]);
    let of = |turn| plan.choices(Pick { client: None, ..pick(turn) }, &pool).next_of(&pool);
    let second = (0..1_000).filter(|turn| of(*turn) == Some(1)).count();
    assert!((400..600).contains(&second), "{second}");
}

/// Counts the calls of `load`.
struct Counting(Cell<usize>);

impl Pool for &Counting {
    fn load(&self, _: usize) -> usize {
        self.0.set(self.0.get() + 1);
        1
    }

    fn warmth(&self, _: usize) -> u32 {
        WARM
    }
}

#[test]
fn pick_examines_no_more_of_ten_thousand_endpoints_than_of_a_hundred() {
    for balance in Balance::ALL {
        let examined = |count| {
            let (plan, pool) = (plan(balance, &vec![1; count]), Counting(Cell::new(0)));
            let most = (0..200).map(|turn| {
                plan.choices(pick(turn), &pool).next_of(&pool).unwrap();
                pool.0.take()
            });
            most.max().unwrap()
        };
        let (few, many) = (examined(100), examined(10_000));
        assert!(many <= few && many <= SAMPLE_MAX, "{balance:?}: {few} of 100, {many} of 10,000");
    }
}

/// A session that finds all endpoints full must not cost more than examining each of them once.
#[test]
fn going_through_all_of_ten_thousand_endpoints_is_linear() {
    for balance in Balance::ALL {
        let (plan, pool) = (plan(balance, &[1; 10_000]), Counting(Cell::new(0)));
        assert_eq!(order(&plan, pick(3), &pool).len(), 10_000);
        assert!(pool.0.get() <= RANKED_MAX * SAMPLE_MAX, "{balance:?}: {}", pool.0.get());
    }
}
