//! Round robin: endpoints take turns, as often as their weights require. Pure.

use super::schedule::Schedule;
use super::tried::Tried;

/// Returns the first endpoint from `slot` on that was not tried; there must be one. Sets `slot` to the one after it.
pub(super) fn choice(schedule: &Schedule, tried: &Tried, slot: &mut usize) -> Option<usize> {
    loop {
        let choice = schedule.at(*slot)?;
        *slot += 1;
        if !tried.contains(choice) {
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
    fn each_turn_starts_at_the_next_endpoint_and_wraps_around() {
        assert_eq!(order(0, &[1, 1, 1]), [0, 1, 2]);
        assert_eq!(order(1, &[1, 1, 1]), [1, 2, 0]);
        assert_eq!(order(5, &[1, 1, 1]), [2, 0, 1]);
        assert_eq!(order(u64::MAX, &[1]), [0]);
        assert_eq!(order(7, &[]), [0usize; 0]);
    }

    #[test]
    fn turns_of_a_failed_endpoint_go_to_the_others_by_weight() {
        assert_eq!([0, 1, 2, 3].map(|turn| order(turn, &[3, 1])[0]), [0, 0, 1, 0]);
        assert_eq!(order(0, &[3, 0, 1]), [0, 2]);
    }
}
