//! Points of endpoints on a circle, and the first of them after a place, found without a search.

use super::chance::nth;
use super::tried::Tried;

/// Of each endpoint. With 16 places a client, the share of an endpoint is within 3 % of what it is due at one standard
/// deviation, as that of a ring with a thousand points each: 1 / sqrt(32 * (2 * 16 - 1)).
pub(super) const POINTS: u64 = 32;

/// The low bits of a point are its endpoint's index; those above, its place on the circle.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

/// Endpoints of one weight.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) weight: u32,
    /// Ascending.
    points: Box<[u64]>,
    /// The circle cut into equal pieces, as many as there are points, or nearly: where the points of each begin.
    pieces: Box<[u32]>,
    /// By how much a place is shifted to be the number of its piece.
    shift: u32,
}

impl Ring {
    pub(super) fn new(weight: u32, nodes: &[(usize, u64)]) -> Ring {
        let point =
            |(index, name): &(usize, u64), n| nth(*name, n) & !INDEX_MASK | (*index as u64 & INDEX_MASK);
        let mut points: Vec<u64> =
            nodes.iter().flat_map(|node| (0..POINTS).map(move |n| point(node, n))).collect();
        points.sort_unstable();
        let bits = points.len().max(2).ilog2();
        let shift = u64::BITS - bits;
        let mut begin = 0;
        let pieces = (0..1u64 << bits).map(|piece| {
            begin += points.get(begin..).unwrap_or_default().partition_point(|point| point >> shift < piece);
            u32::try_from(begin).unwrap_or(u32::MAX)
        });
        Ring { weight, pieces: pieces.collect(), points: points.into(), shift }
    }

    /// How far it is from a place to the next point of an endpoint that was not tried, and whose it is.
    pub(super) fn next(&self, place: u64, tried: &Tried) -> Option<(u64, usize)> {
        let place = place & !INDEX_MASK;
        let piece = usize::try_from(place >> self.shift).ok()?;
        let start = *self.pieces.get(piece)? as usize;
        let (before, from) = self.points.split_at_checked(start)?;
        // At most the points of one piece are passed here, which are one or two.
        let after = from.iter().skip_while(|point| **point < place);
        let mut all = after.chain(before).chain(from).map(|point| (*point, index(*point)));
        let (point, index) = all.find(|(_, index)| !tried.has(*index))?;
        Some(((point & !INDEX_MASK).wrapping_sub(place) >> INDEX_BITS, index))
    }
}

fn index(point: u64) -> usize {
    usize::try_from(point & INDEX_MASK).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::chance::mix;
    use super::*;

    #[test]
    fn the_next_point_is_the_one_that_a_search_finds() {
        for count in [1, 2, 3, 50, 1_000] {
            let nodes: Vec<_> = (0..count).map(|index| (index, mix(index as u64))).collect();
            let ring = Ring::new(1, &nodes);
            for n in 0..2_000 {
                let place = nth(7, n) & !INDEX_MASK;
                let distance = |point: &u64| (point & !INDEX_MASK).wrapping_sub(place);
                let nearest = ring.points.iter().min_by_key(|point| distance(point)).unwrap();
                let expected = (distance(nearest) >> INDEX_BITS, index(*nearest));
                assert_eq!(ring.next(place, &Tried::default()), Some(expected), "{count}");
            }
        }
    }

    #[test]
    fn a_ring_of_which_all_were_tried_has_no_next_point() {
        let ring = Ring::new(1, &[(0, 5), (3, 9)]);
        let mut tried = Tried::default();
        tried.add(0);
        assert_eq!(ring.next(u64::MAX, &tried).map(|(_, index)| index), Some(3));
        tried.add(3);
        assert_eq!(ring.next(1, &tried), None);
    }

    /// The pieces are what makes it flat: none has many points.
    #[test]
    fn no_more_than_a_few_points_are_passed() {
        let nodes: Vec<_> = (0..10_000).map(|index| (index, mix(index as u64))).collect();
        let ring = Ring::new(1, &nodes);
        let longest = ring.pieces.windows(2).map(|two| two[1] - two[0]).max();
        assert!(longest < Some(16), "{longest:?}");
        assert!(ring.pieces.len() * 2 >= ring.points.len());
    }
}
