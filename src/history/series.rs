//! A ring of slots, in chunks of 60. A chunk whose slots are all the same takes no memory of its own. Pure.

/// Slots per chunk. As long as a minute, in which seconds are aggregated.
const CHUNK: usize = 60;

/// The slots of one number per second, or per minute. Slots are numbered from the start; as many as `visible` behind the last
/// one can be read.
#[derive(Debug)]
pub(super) struct Series {
    /// One chunk more than what is visible, because a chunk that begins replaces 60 slots at once.
    chunks: Box<[Chunk]>,
}

#[derive(Debug)]
enum Chunk {
    Same(u16),
    Each(Box<[u16; CHUNK]>),
}

impl Series {
    /// Creates a series of zeros, of which `visible` slots can be read.
    pub(super) fn zeros(visible: usize) -> Series {
        let chunks = visible.div_ceil(CHUNK) + 1;
        Series { chunks: (0..chunks).map(|_| Chunk::Same(0)).collect() }
    }

    /// Sets `count` slots from `at` on, which must follow the last one that was set.
    pub(super) fn fill(&mut self, at: u64, count: u64, value: u16) {
        let skipped = count.saturating_sub((self.chunks.len() * CHUNK) as u64);
        let (mut at, end) = (at + skipped, at + count);
        while at < end {
            let (chunk, offset) = self.position(at);
            if let Some(chunk) = self.chunks.get_mut(chunk) {
                chunk.fill_from(offset, value);
            }
            at += (CHUNK - offset) as u64;
        }
    }

    /// Returns the value of a slot.
    pub(super) fn value(&self, at: u64) -> u16 {
        let (chunk, offset) = self.position(at);
        match self.chunks.get(chunk) {
            Some(Chunk::Same(value)) => *value,
            Some(Chunk::Each(values)) => values.get(offset).copied().unwrap_or(0),
            None => 0,
        }
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let each = |chunk: &Chunk| match chunk {
            Chunk::Same(_) => size_of::<Chunk>(),
            Chunk::Each(_) => size_of::<Chunk>() + size_of::<[u16; CHUNK]>(),
        };
        self.chunks.iter().map(each).sum()
    }

    /// Returns the chunk of a slot and the offset in it.
    fn position(&self, at: u64) -> (usize, usize) {
        let slot = usize::try_from(at).unwrap_or(0);
        (slot / CHUNK % self.chunks.len(), slot % CHUNK)
    }
}

impl Chunk {
    /// Sets the slots from an offset to the end, of which those after the last slot are set again before they are read.
    fn fill_from(&mut self, offset: usize, value: u16) {
        match self {
            _ if offset == 0 => *self = Chunk::Same(value),
            Chunk::Same(same) if *same == value => {}
            Chunk::Same(same) => {
                let mut values = Box::new([*same; CHUNK]);
                values.iter_mut().skip(offset).for_each(|slot| *slot = value);
                *self = Chunk::Each(values);
            }
            Chunk::Each(values) => values.iter_mut().skip(offset).for_each(|slot| *slot = value),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn visible_slots_are_what_was_set(fills in prop::collection::vec((0u64..200, 0u16..3), 0..40)) {
            let (mut series, mut model) = (Series::zeros(100), Vec::new());
            for (count, value) in fills {
                series.fill(model.len() as u64, count, value);
                model.extend((0..count).map(|_| value));
            }
            let first = model.len().saturating_sub(100);
            for (at, value) in model.iter().enumerate().skip(first) {
                prop_assert_eq!(series.value(at as u64), *value);
            }
        }
    }

    #[test]
    fn long_fill_is_as_fast_as_a_short_one() {
        let mut series = Series::zeros(600);
        series.fill(0, 5, 1);
        series.fill(5, u64::from(u32::MAX), 2);
        assert_eq!(series.value(5 + u64::from(u32::MAX) - 600), 2);
    }
}
