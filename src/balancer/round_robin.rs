//! Round robin: everyone in turn, as often as its weight says, and the next one when that fails.

use super::schedule::Schedule;
use super::tried::Tried;

pub(super) struct Choices<'p> {
    turns: &'p Schedule,
    slot: usize,
    yielded: usize,
    tried: Tried,
}

impl<'p> Choices<'p> {
    pub(super) fn new(turns: &'p Schedule, turn: u64) -> Choices<'p> {
        Choices { turns, slot: turns.slot(turn), yielded: 0, tried: Tried::default() }
    }
}

impl Iterator for Choices<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.yielded == self.turns.takers() {
            return None;
        }
        loop {
            let choice = self.turns.at(self.slot)?;
            self.slot += 1;
            if !self.tried.has(choice) {
                self.tried.add(choice);
                self.yielded += 1;
                return Some(choice);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(turn: u64, weights: &[u32]) -> Vec<usize> {
        Choices::new(&Schedule::new(weights), turn).collect()
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
