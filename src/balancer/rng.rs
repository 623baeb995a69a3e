//! Deterministic pseudorandom numbers and hashes. Pure. Not for cryptography.

/// The fractional part of the golden ratio in 64 bits: multiples of it are spread evenly over all values.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes every bit into all others (the finalizer of splitmix64, public domain: prng.di.unimi.it).
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Returns a hash that is the same in every process and version, so that several ambassadors send a client to the same
/// endpoint: FNV-1a (isthe.com/chongo/tech/comp/fnv), then [`mix`].
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Returns the `n`-th number of the sequence that `seed` begins (splitmix64).
pub(crate) fn nth(seed: u64, n: u64) -> u64 {
    mix(seed.wrapping_add(n.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// Maps random bits to a uniform number below `bound`, within the precision of 64 bits.
pub(super) fn below(bits: u64, bound: u64) -> u64 {
    let wide = u128::from(bits) * u128::from(bound);
    u64::try_from(wide >> 64).unwrap_or(u64::MAX)
}

/// Maps random bits to an index of a list, as [`below`] does.
pub(super) fn index_below(bits: u64, length: usize) -> usize {
    usize::try_from(below(bits, length as u64)).unwrap_or(0)
}

/// A sequence of random numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rng {
    seed: u64,
    drawn: u64,
}

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng { seed, drawn: 0 }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        below(self.bits(), bound)
    }

    pub(super) fn index_below(&mut self, length: usize) -> usize {
        index_below(self.bits(), length)
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
    fn numbers_are_uniform_and_below_their_bound() {
        let mut counts = [0u32; 10];
        let mut rng = Rng::new(7);
        for _ in 0..100_000 {
            counts[usize::try_from(rng.below(10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        assert_eq!(below(u64::MAX, 1), 0);
        assert_eq!(below(u64::MAX, 3), 2);
    }

    #[test]
    fn hash_never_changes() {
        assert_eq!(hash(b"10.0.0.1:80"), 15_833_689_265_622_162_035);
    }
}
