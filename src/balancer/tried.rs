//! The endpoints that a pick has yielded. Pure. Allocates only from the second one on.

/// A set of indices.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// Moved into `words` when the next index is added, so that the usual case of one index does not allocate.
    last: Option<usize>,
    words: Vec<u64>,
    count: usize,
}

impl Tried {
    /// Adds an index that is not in the set.
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

    pub(super) fn contains(&self, index: usize) -> bool {
        let bit = |word: &u64| word >> (index % 64) & 1 == 1;
        self.last == Some(index) || self.words.get(index / 64).is_some_and(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_contains_what_was_added_and_the_first_index_does_not_allocate() {
        let mut tried = Tried::default();
        assert!(!tried.contains(0));
        tried.add(700);
        assert!(tried.contains(700) && tried.words.is_empty());
        for index in [0, 63, 64] {
            tried.add(index);
        }
        let contained: Vec<usize> = (0..800).filter(|index| tried.contains(*index)).collect();
        assert_eq!((contained, tried.count()), (vec![0, 63, 64, 700], 4));
    }
}
