//! Numbers that look random, from numbers that need not. Not for secrets.

/// The golden ratio's fraction, in 64 bits: steps of it visit all of a circle evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit over all others (the finalizer of splitmix64, public domain: prng.di.unimi.it).
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The same in every process and every version, so that several ambassadors send one client to one endpoint: FNV-1a
/// (isthe.com/chongo/tech/comp/fnv), then spread.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The `n`-th of the numbers that follow from `seed` (splitmix64).
pub(crate) fn nth(seed: u64, n: u64) -> u64 {
    mix(seed.wrapping_add(n.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// Uniform below `bound`, as far as 64 bits can be.
pub(super) fn below(bits: u64, bound: u64) -> u64 {
    let wide = u128::from(bits) * u128::from(bound);
    u64::try_from(wide >> 64).unwrap_or(u64::MAX)
}

/// As [`below`], for a place in a list of this length.
pub(super) fn place(bits: u64, length: usize) -> usize {
    usize::try_from(below(bits, length as u64)).unwrap_or(0)
}

/// A sequence of draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draws {
    seed: u64,
    drawn: u64,
}

impl Draws {
    pub(super) fn new(seed: u64) -> Draws {
        Draws { seed, drawn: 0 }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        below(self.bits(), bound)
    }

    /// As [`place`].
    pub(super) fn place(&mut self, length: usize) -> usize {
        place(self.bits(), length)
    }

    fn bits(&mut self) -> u64 {
        self.drawn += 1;
        nth(self.seed, self.drawn - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_below_their_bound() {
        let mut counts = [0u32; 10];
        let mut draws = Draws::new(7);
        for _ in 0..100_000 {
            counts[usize::try_from(draws.below(10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        assert_eq!(below(u64::MAX, 1), 0);
        assert_eq!(below(u64::MAX, 3), 2);
    }

    #[test]
    fn the_hash_is_the_same_for_ever() {
        assert_eq!(hash(b"10.0.0.1:80"), 15_833_689_265_622_162_035);
    }
}
