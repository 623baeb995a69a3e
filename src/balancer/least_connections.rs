//! Least connections: the endpoint with the fewest sessions; among equals everyone in turn.

pub struct Choices<L> {
    start: usize,
    count: usize,
    load: L,
    /// The last choice is moved into `tried` only when another is asked for, so that the usual case, one choice,
    /// allocates nothing.
    last: Option<usize>,
    tried: Vec<usize>,
}

impl<L> Choices<L> {
    pub(super) fn new(turn: usize, count: usize, load: L) -> Choices<L> {
        Choices { start: turn.checked_rem(count).unwrap_or(0), count, load, last: None, tried: Vec::new() }
    }
}

impl<L: Fn(usize) -> usize> Iterator for Choices<L> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.tried.extend(self.last.take());
        let in_turn = (self.start..self.count).chain(0..self.start);
        // `min_by_key` takes the first of equals.
        self.last =
            in_turn.filter(|choice| !self.tried.contains(choice)).min_by_key(|choice| (self.load)(*choice));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(turn: usize, loads: &[usize]) -> Vec<usize> {
        Choices::new(turn, loads.len(), |n| loads[n]).collect()
    }

    #[test]
    fn the_least_loaded_comes_first_and_equals_take_turns() {
        assert_eq!(order(0, &[3, 1, 2]), [1, 2, 0]);
        assert_eq!(order(0, &[1, 1, 1]), [0, 1, 2]);
        assert_eq!(order(2, &[1, 1, 1]), [2, 0, 1]);
        assert_eq!(order(1, &[0, 5, 0]), [2, 0, 1]);
        assert_eq!(order(9, &[]), [0usize; 0]);
    }
}
