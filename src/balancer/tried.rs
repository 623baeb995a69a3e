//! Which endpoints a pick has yielded already: nothing at all, while the first will do.

/// A set of indices.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// The last one is put into `words` only when another is asked for, so that the usual case allocates nothing.
    last: Option<usize>,
    words: Vec<u64>,
    count: usize,
}

impl Tried {
    /// One that it has not.
    pub(super) fn add(&mut self, index: usize) {
        self.count += 1;
        if let Some(last) = self.last.replace(index) {
            let word = last / 64;
            if self.words.len() <= word {
                self.words.resize(word + 1, 0);
            }
            if let Some(word) = self.words.get_mut(word) {
                *word |= 1 << (last % 64);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn has(&self, index: usize) -> bool {
        let bit = |word: &u64| word >> (index % 64) & 1 == 1;
        self.last == Some(index) || self.words.get(index / 64).is_some_and(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_and_the_first_costs_nothing() {
        let mut tried = Tried::default();
        assert!(!tried.has(0));
        tried.add(700);
        assert!(tried.has(700) && tried.words.is_empty());
        for index in [0, 63, 64] {
            tried.add(index);
        }
        let there: Vec<usize> = (0..800).filter(|index| tried.has(*index)).collect();
        assert_eq!((there, tried.count()), (vec![0, 63, 64, 700], 4));
    }
}
