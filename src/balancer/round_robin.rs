//! Round robin: everyone in turn, and the next one when that fails.

pub struct Choices {
    start: usize,
    yielded: usize,
    count: usize,
}

impl Choices {
    pub(super) fn new(turn: usize, count: usize) -> Choices {
        Choices { start: turn.checked_rem(count).unwrap_or(0), yielded: 0, count }
    }
}

impl Iterator for Choices {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.yielded == self.count {
            return None;
        }
        let choice = (self.start + self.yielded) % self.count;
        self.yielded += 1;
        Some(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_starts_one_further_and_goes_round() {
        assert_eq!(Choices::new(0, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(Choices::new(1, 3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(Choices::new(5, 3).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(Choices::new(usize::MAX, 1).collect::<Vec<_>>(), [0]);
        assert_eq!(Choices::new(7, 0).collect::<Vec<_>>(), [0usize; 0]);
    }
}
