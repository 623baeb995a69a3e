//! A hash ring: the points of endpoints on a circle. Finds the first point after a position in O(1). Pure.

use super::rng::nth;
use super::tried::Tried;

/// Points per endpoint. With 16 positions per client, the share of an endpoint deviates from its weight by 3 % (one standard
/// deviation), as on a ring with a thousand points per endpoint: 1 / sqrt(32 * (2 * 16 - 1)).
pub(super) const POINTS: u64 = 32;

/// The low bits of a point are the index of its endpoint, the high bits its position on the circle.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

/// The points of all endpoints of one weight.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) weight: u32,
    /// Ascending.
    points: Box<[u64]>,
    /// The circle is divided into equal sections, about as many as there are points: where the points of each section begin.
    sections: Box<[u32]>,
    /// A position shifted right by this is the number of its section.
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
        let sections = (0..1u64 << bits).map(|section| {
            begin +=
                points.get(begin..).unwrap_or_default().partition_point(|point| point >> shift < section);
            u32::try_from(begin).unwrap_or(u32::MAX)
        });
        Ring { weight, sections: sections.collect(), points: points.into(), shift }
    }

    /// Returns the distance from a position to the next point of an endpoint that was not tried, and that endpoint.
    pub(super) fn next(&self, position: u64, tried: &Tried) -> Option<(u64, usize)> {
        let position = position & !INDEX_MASK;
        let section = usize::try_from(position >> self.shift).ok()?;
        let start = *self.sections.get(section)? as usize;
        let (before, from) = self.points.split_at_checked(start)?;
        // Skips points of one section only, which has one or two.
        let after = from.iter().skip_while(|point| **point < position);
        let mut all = after.chain(before).chain(from).map(|point| (*point, index(*point)));
        let (point, index) = all.find(|(_, index)| !tried.contains(*index))?;
        Some(((point & !INDEX_MASK).wrapping_sub(position) >> INDEX_BITS, index))
    }
}

fn index(point: u64) -> usize {
    usize::try_from(point & INDEX_MASK).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::rng::mix;
    use super::*;

    #[test]
    fn next_point_is_the_one_that_a_linear_search_finds() {
        for count in [1, 2, 3, 50, 1_000] {
            let nodes: Vec<_> = (0..count).map(|index| (index, mix(index as u64))).collect();
            let ring = Ring::new(1, &nodes);
            for n in 0..2_000 {
                let position = nth(7, n) & !INDEX_MASK;
                let distance = |point: &u64| (point & !INDEX_MASK).wrapping_sub(position);
                let nearest = ring.points.iter().min_by_key(|point| distance(point)).unwrap();
                let expected = (distance(nearest) >> INDEX_BITS, index(*nearest));
                assert_eq!(ring.next(position, &Tried::default()), Some(expected), "{count}");
            }
        }
    }

    #[test]
    fn ring_without_untried_endpoints_has_no_next_point() {
        let ring = Ring::new(1, &[(0, 5), (3, 9)]);
        let mut tried = Tried::default();
        tried.add(0);
        assert_eq!(ring.next(u64::MAX, &tried).map(|(_, index)| index), Some(3));
        tried.add(3);
        assert_eq!(ring.next(1, &tried), None);
    }

    #[test]
    fn no_section_has_more_than_a_few_points() {
        let nodes: Vec<_> = (0..10_000).map(|index| (index, mix(index as u64))).collect();
        let ring = Ring::new(1, &nodes);
        let longest = ring.sections.windows(2).map(|two| two[1] - two[0]).max();
        assert!(longest < Some(16), "{longest:?}");
        assert!(ring.sections.len() * 2 >= ring.points.len());
    }
}
