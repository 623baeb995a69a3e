//! Round robin: everyone in turn, as often as its weight says, and the next one when that fails.

use super::schedule::Schedule;
use super::tried::Tried;

/// From this slot on, the first that was not tried: there is one. Leaves the slot after it.
pub(super) fn choice(turns: &Schedule, tried: &Tried, slot: &mut usize) -> Option<usize> {
    loop {
        let choice = turns.at(*slot)?;
        *slot += 1;
        if !tried.has(choice) {
            return Some(choice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::order_of;
    use crate::route::Balance::RoundRobin;

    fn order(turn: u64, weights: &[u32]) -> Vec<usize> {
        order_of(RoundRobin, weights, turn, &vec![0; weights.len()])
    }

    #[test]
    fn each_turn_starts_one_further_and_goes_round() {
        assert_eq!(order(0, &[1, 1, 1]), [0, 1, 2]);
        assert_eq!(order(1, &[1, 1, 1]), [1, 2, 0]);
        assert_eq!(order(5, &[1, 1, 1]), [2, 0, 1]);
        assert_eq!(order(u64::MAX, &[1]), [0]);
        assert_eq!(order(7, &[]), [0usize; 0]);
    }

    #[test]
    fn the_turns_of_one_that_fails_go_to_the_others_by_weight() {
        assert_eq!([0, 1, 2, 3].map(|turn| order(turn, &[3, 1])[0]), [0, 0, 1, 0]);
        assert_eq!(order(0, &[3, 0, 1]), [0, 2]);
    }
}
