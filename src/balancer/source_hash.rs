//! Source hash: the sessions of a client go to one endpoint, the nearest one on a hash ring. Pure.
//!
//! Each endpoint has 32 points on a circle, each client 16 positions. The distance of an endpoint from a client is the smallest
//! one from any of the positions to any of the points, divided by the endpoint's weight (multi-probe consistent hashing:
//! Appleton and O'Reilly, 2015). It depends on these two alone, like a score of rendezvous hashing. An endpoint that leaves
//! therefore moves only its own clients, a changed weight moves clients only to or from that endpoint, and all processes agree.
//! Unlike a score, the smallest distance is found without examining all endpoints: the points of one weight form a [`Ring`].

use std::collections::BTreeMap;

use super::ring::Ring;
use super::rng::nth;
use super::tried::Tried;

/// Positions per client. More of them make the distribution more even and each pick slower; more points would take more memory.
const POSITIONS: u64 = 16;

/// Significant bits of a weight. They bound the number of rings: weights up to 15 are exact, larger ones are rounded by at most
/// 6 %, and there are at most 111 distinct ones up to 65,535.
const WEIGHT_BITS: u32 = 4;

/// A ring for each distinct weight.
pub(super) type Rings = Box<[Ring]>;

pub(super) fn rings(weights: &[u32], names: impl Iterator<Item = u64>) -> Rings {
    let mut nodes: BTreeMap<u32, Vec<(usize, u64)>> = BTreeMap::new();
    for (index, (weight, name)) in weights.iter().zip(names).enumerate() {
        nodes.entry(rounded(*weight)).or_default().push((index, name));
    }
    let weighted = nodes.iter().filter(|(weight, _)| **weight > 0);
    weighted.map(|(weight, nodes)| Ring::new(*weight, nodes)).collect()
}

/// Returns the nearest endpoint that was not tried.
pub(super) fn choice(rings: &Rings, client: u64, tried: &Tried) -> Option<usize> {
    let mut best: Option<(u64, u32, usize)> = None;
    for ring in rings {
        let weight = ring.weight;
        let nearest = (0..POSITIONS).filter_map(|n| ring.next(nth(client, n), tried)).min();
        let Some((distance, index)) = nearest else { continue };
        let is_nearer = |(other, its_weight, _): &(u64, u32, usize)| {
            u128::from(distance) * u128::from(*its_weight) < u128::from(*other) * u128::from(weight)
        };
        if best.as_ref().is_none_or(is_nearer) {
            best = Some((distance, weight, index));
        }
    }
    best.map(|(.., index)| index)
}

fn rounded(weight: u32) -> u32 {
    let dropped = (u32::BITS - weight.leading_zeros()).saturating_sub(WEIGHT_BITS);
    let half = (1 << dropped) >> 1;
    weight.saturating_add(half) >> dropped << dropped
}

#[cfg(test)]
mod tests {
    use super::super::rng::hash;
    use super::*;

    const CLIENTS: u64 = 20_000;

    fn names(names: &[&str]) -> Vec<u64> {
        names.iter().map(|name| hash(name.as_bytes())).collect()
    }

    fn first(weights: &[u32], names: &[u64], client: u64) -> Option<usize> {
        choice(&rings(weights, names.iter().copied()), nth(5, client), &Tried::default())
    }

    fn order(rings: &Rings, client: u64) -> Vec<usize> {
        let mut tried = Tried::default();
        let next = || {
            let choice = choice(rings, nth(5, client), &tried)?;
            tried.add(choice);
            Some(choice)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn endpoint_that_leaves_moves_only_its_own_clients_to_their_next_choice() {
        let (all, fewer) = (names(&["a", "b", "c", "d"]), names(&["a", "b", "d"]));
        for weights in [[1, 1, 1, 1], [1, 5, 2, 9]] {
            let [a, b, _, d] = weights;
            for client in 0..CLIENTS / 10 {
                let before = order(&rings(&weights, all.iter().copied()), client);
                let now = order(&rings(&[a, b, d], fewer.iter().copied()), client);
                let now: Vec<u64> = now.into_iter().map(|index| fewer[index]).collect();
                let others: Vec<u64> =
                    before.into_iter().map(|index| all[index]).filter(|name| *name != all[2]).collect();
                assert_eq!(now, others);
            }
        }
    }

    #[test]
    fn changed_weight_moves_clients_only_to_or_from_that_endpoint() {
        let names = names(&["a", "b", "c"]);
        for client in 0..CLIENTS / 10 {
            let (before, after) = (first(&[2, 2, 2], &names, client), first(&[2, 3, 2], &names, client));
            assert!(before == after || after == Some(1));
        }
    }

    #[test]
    fn clients_are_distributed_by_weight() {
        let names = names(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]);
        for weights in [[1, 1, 1, 1], [1, 2, 0, 5]] {
            let mut counts = [0f64; 4];
            for client in 0..CLIENTS {
                counts[first(&weights, &names, client).unwrap()] += 1.0;
            }
            let sum: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let due = f64::from(weight) / f64::from(sum) * 20_000.0;
                assert!((count - due).abs() < 400.0, "{counts:?} of {weights:?}");
            }
        }
    }
}
