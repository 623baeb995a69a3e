//! In which order to try the endpoints of a tier. Pure: indices in, indices out.

mod least_connections;
mod round_robin;

use crate::route::Balance;

/// Yields each index below `count` once, best first. `turn` grows by one with each call for one cluster, so that equals
/// take turns; `load` is the number of sessions of an endpoint now.
pub fn choices<L: Fn(usize) -> usize>(balance: Balance, turn: usize, count: usize, load: L) -> Choices<L> {
    match balance {
        Balance::RoundRobin => Choices::RoundRobin(round_robin::Choices::new(turn, count)),
        Balance::LeastConnections => {
            Choices::LeastConnections(least_connections::Choices::new(turn, count, load))
        }
    }
}

pub enum Choices<L> {
    RoundRobin(round_robin::Choices),
    LeastConnections(least_connections::Choices<L>),
}

impl<L: Fn(usize) -> usize> Iterator for Choices<L> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Choices::RoundRobin(choices) => choices.next(),
            Choices::LeastConnections(choices) => choices.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_endpoint_is_yielded_once(
            which in 0..Balance::ALL.len(),
            turn: usize,
            loads in prop::collection::vec(0usize..5, 0..20),
        ) {
            let mut order: Vec<usize> =
                choices(Balance::ALL[which], turn, loads.len(), |n| loads[n]).collect();
            order.sort_unstable();
            prop_assert_eq!(order, (0..loads.len()).collect::<Vec<_>>());
        }
    }
}
