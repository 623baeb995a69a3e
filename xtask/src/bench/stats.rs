//! Medians, ranges, and ratios that are computed within a round.

use std::collections::BTreeMap;

/// The median of several measurements and their range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Values by the round in which they were measured.
pub(super) type Rounds = BTreeMap<usize, f64>;

/// Returns `None` for no values.
pub(super) fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    };
    Some(Spread { median, low, high })
}

/// Returns the ratio of ours to theirs by round, because a disturbance affects both. Skips rounds that only one of them
/// has and those in which theirs is not positive: a proxy may have less memory after its connections than before.
pub(super) fn ratio(ours: &Rounds, theirs: &Rounds) -> Option<Spread> {
    let theirs = |round| theirs.get(round).filter(|theirs| **theirs > 0.0);
    spread(ours.iter().filter_map(|(round, ours)| Some(ours / theirs(round)?)))
}

#[cfg(test)]
mod tests {
    use super::{Rounds, Spread, ratio, spread};

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(spread([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(spread([4.0, 1.0, 2.0, 100.0]), Some(Spread { median: 3.0, low: 1.0, high: 100.0 }));
        assert_eq!(spread([]), None);
        assert_eq!(spread([f64::NAN]), None);
    }

    #[test]
    fn ratios_are_of_the_same_round_and_not_of_medians() {
        let ours = Rounds::from([(0, 1.0), (1, 10.0), (2, 100.0)]);
        let theirs = Rounds::from([(0, 2.0), (1, 20.0), (2, 50.0), (3, 1.0)]);
        assert_eq!(ratio(&ours, &theirs), Some(Spread { median: 0.5, low: 0.5, high: 2.0 }));
    }

    #[test]
    fn a_round_in_which_they_have_nothing_has_no_ratio() {
        let ours = Rounds::from([(0, 1.0), (1, 1.0)]);
        assert_eq!(ratio(&ours, &Rounds::from([(0, 0.0), (1, 4.0)])).map(|ratio| ratio.median), Some(0.25));
        assert_eq!(ratio(&ours, &Rounds::from([(0, -1.0), (1, -2.0)])), None);
        assert_eq!(ratio(&ours, &Rounds::from([(7, 1.0)])), None);
    }
}
