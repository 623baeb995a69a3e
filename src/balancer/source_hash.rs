//! Source hash: a client's sessions go to one endpoint, the one that scores highest for it.
//!
//! Rendezvous hashing with weights (Thaler and Ravishankar, 1998; Mosharaf, "Weighted Distributed Hash Tables", 2009): each
//! endpoint's score depends on the client and on that endpoint alone, so one endpoint gone moves its own clients and
//! nobody else's, and the next choice is the next score. Exact where a ring or a Maglev table is nearly so, and O(n): 10,000
//! endpoints cost what a connect costs.

use super::chance::mix;

#[derive(Debug)]
pub struct Rendezvous {
    nodes: Box<[Node]>,
    /// All weights are one: the hash alone ranks as the score would.
    is_even: bool,
}

#[derive(Debug)]
struct Node {
    name: u64,
    index: usize,
    weight: f64,
}

impl Rendezvous {
    pub(super) fn new(weights: &[u32], names: impl Iterator<Item = u64>) -> Rendezvous {
        let node = |(index, (weight, name)): (usize, (&u32, u64))| {
            (*weight > 0).then(|| Node { name, index, weight: f64::from(*weight) })
        };
        let nodes: Box<[Node]> = weights.iter().zip(names).enumerate().filter_map(node).collect();
        let mut takers = weights.iter().filter(|weight| **weight > 0);
        let first = takers.next();
        Rendezvous { nodes, is_even: takers.all(|weight| Some(weight) == first) }
    }

    /// Higher is better. Of two that score alike, the one of the lower index is the better.
    fn score(&self, node: &Node, client: u64) -> f64 {
        // 53 bits are what a float has.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let unit = ((mix(client ^ node.name) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        if self.is_even { unit } else { -node.weight / unit.ln() }
    }
}

pub(super) struct Choices<'p> {
    nodes: &'p Rendezvous,
    client: u64,
    /// The last choice: its score, and its place in `nodes`.
    last: Option<(f64, usize)>,
}

impl<'p> Choices<'p> {
    pub(super) fn new(nodes: &'p Rendezvous, client: u64) -> Choices<'p> {
        Choices { nodes, client, last: None }
    }

    fn comes_after_last(&self, score: f64, place: usize) -> bool {
        self.last.is_none_or(|(last, last_place)| score < last || (score == last && place > last_place))
    }
}

impl Iterator for Choices<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let mut best: Option<(f64, usize, usize)> = None;
        for (place, node) in self.nodes.nodes.iter().enumerate() {
            let score = self.nodes.score(node, self.client);
            if best.is_none_or(|(best, ..)| score > best) && self.comes_after_last(score, place) {
                best = Some((score, place, node.index));
            }
        }
        let (score, place, index) = best?;
        self.last = Some((score, place));
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::{hash, nth};
    use super::*;

    const CLIENTS: u64 = 20_000;

    fn names(names: &[&str]) -> Vec<u64> {
        names.iter().map(|name| hash(name.as_bytes())).collect()
    }

    fn first(weights: &[u32], names: &[u64], client: u64) -> Option<usize> {
        Choices::new(&Rendezvous::new(weights, names.iter().copied()), nth(5, client)).next()
    }

    #[test]
    fn one_endpoint_gone_moves_only_its_own_clients_and_to_their_next_choice() {
        let (all, fewer) = (names(&["a", "b", "c", "d"]), names(&["a", "b", "d"]));
        for weights in [[1, 1, 1, 1], [1, 5, 2, 9]] {
            let [a, b, _, d] = weights;
            for client in 0..CLIENTS / 10 {
                let nodes = Rendezvous::new(&weights, all.iter().copied());
                let order: Vec<u64> = Choices::new(&nodes, nth(5, client)).map(|index| all[index]).collect();
                let now = first(&[a, b, d], &fewer, client).map(|index| fewer[index]);
                let expected = order.iter().find(|name| **name != all[2]);
                assert_eq!(now.as_ref(), expected);
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
