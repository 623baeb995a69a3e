//! Source hash: a client's sessions go to one endpoint, the one that is nearest to it.
//!
//! Each endpoint has 32 points on a circle, each client 16 places on it; how far an endpoint is from a client is the
//! shortest way from any of these places on to any of those points, divided by the endpoint's weight (multi-probe
//! consistent hashing: Appleton and O'Reilly, 2015). That depends on the two alone, as a score of rendezvous hashing does.
//! So one endpoint gone moves its own clients and nobody else's, to the one that is nearest then; another weight moves
//! clients to it or from it alone; and every process says the same. Unlike a score, the nearest is found without looking at
//! all: the points of one weight are in one [`Ring`].

use std::collections::BTreeMap;

use super::chance::nth;
use super::ring::Ring;
use super::tried::Tried;

/// Of each client. What more of them cost in a pick, more points would cost in memory.
const PLACES: u64 = 16;

/// Significant bits of a weight, so that there are few rings however many weights there are: up to 15 exact, then within
/// 6 %, and at most 111 different ones up to 65,535.
const WEIGHT_BITS: u32 = 4;

/// One for each weight.
pub(super) type Rings = Box<[Ring]>;

pub(super) fn rings(weights: &[u32], names: impl Iterator<Item = u64>) -> Rings {
    let mut nodes: BTreeMap<u32, Vec<(usize, u64)>> = BTreeMap::new();
    for (index, (weight, name)) in weights.iter().zip(names).enumerate() {
        nodes.entry(rounded(*weight)).or_default().push((index, name));
    }
    let weighted = nodes.iter().filter(|(weight, _)| **weight > 0);
    weighted.map(|(weight, nodes)| Ring::new(*weight, nodes)).collect()
}

/// The nearest of those that were not tried.
pub(super) fn choice(rings: &Rings, client: u64, tried: &Tried) -> Option<usize> {
    let mut best: Option<(u64, u32, usize)> = None;
    for ring in rings {
        let weight = ring.weight;
        let nearest = (0..PLACES).filter_map(|n| ring.next(nth(client, n), tried)).min();
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
    use super::super::chance::hash;
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
    fn one_endpoint_gone_moves_only_its_own_clients_and_to_their_next_choice() {
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
    fn another_weight_moves_clients_to_it_or_from_it_alone() {
        let names = names(&["a", "b", "c"]);
        for client in 0..CLIENTS / 10 {
            let (before, after) = (first(&[2, 2, 2], &names, client), first(&[2, 3, 2], &names, client));
            assert!(before == after || after == Some(1));
        }
    }

    #[test]
    fn clients_are_spread_by_weight() {
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
