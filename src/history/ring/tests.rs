//! The ring against a list of all seconds.

use proptest::prelude::*;

use super::*;

fn sample() -> impl Strategy<Value = Sample> {
    (0u64..9, 0u64..3, 0u64..3, 0u64..99, 0u64..2_000)
        .prop_map(|(sessions, failed, held, active, bytes)| Sample { sessions, failed, held, active, bytes })
}

/// The naive way: sums and maxima over the seconds that a bucket covers. Compares with what two roundings permit.
fn check(seconds: &[Sample], ring: &Ring, resolution: Resolution, since: usize) {
    let unit = usize::try_from(resolution.span.slot_seconds()).unwrap();
    let end = seconds.len().div_ceil(unit);
    let oldest = end.saturating_sub(resolution.span.slots());
    for (point, bucket) in ring.read(resolution, since as u64).into_iter().enumerate() {
        let behind = (resolution.points - point) * resolution.step;
        let to = (end + resolution.step).saturating_sub(behind).saturating_mul(unit).min(seconds.len());
        let from = end.saturating_sub(behind).max(oldest).saturating_mul(unit).max(since);
        let Some(bucket) = bucket else {
            assert!(to <= from, "{point}: nothing for {from}..{to}");
            continue;
        };
        let mut sum = Sample::default();
        seconds[from..to].iter().for_each(|second| sum.add(1, *second));
        let expected = sum.over((to - from) as u64);
        assert_eq!((bucket.held, bucket.active), (expected.held, expected.active));
        for (got, expected) in [
            (bucket.sessions, expected.sessions),
            (bucket.failed, expected.failed),
            (bucket.bytes, expected.bytes),
        ] {
            assert!((got - expected).abs() <= expected / 1_024.0, "{point}: {got} {expected}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn buckets_are_those_of_a_list_of_all_seconds(
        pushes in prop::collection::vec((1u64..700, sample()), 1..30),
        points in 1usize..=SECONDS,
        start in 0u64..200,
    ) {
        let mut ring = Ring::starting(start);
        let mut seconds = vec![Sample::default(); usize::try_from(start).unwrap()];
        for (count, sample) in pushes {
            ring.push(count, sample);
            seconds.extend((0..count).map(|_| sample));
            prop_assert_eq!(ring.end(), seconds.len() as u64);
        }
        for since in [0, start / 2, start] {
            let since = usize::try_from(since).unwrap();
            check(&seconds, &ring, Resolution::new(Span::Minutes10, points).unwrap(), since);
            check(&seconds, &ring, Resolution::new(Span::Hours24, points).unwrap(), since);
        }
    }
}

#[test]
fn day_is_kept_by_minutes() {
    let mut ring = Ring::starting(0);
    let busy = Sample { sessions: 5, ..Sample::default() };
    ring.push(90, busy);
    ring.push(24 * 3_600 - 90, Sample::default());
    let day = ring.read(Resolution::new(Span::Hours24, MINUTES).unwrap(), 0);
    let rates: Vec<f64> = day.iter().take(3).map(|bucket| bucket.unwrap().sessions).collect();
    assert_eq!((day.len(), rates), (MINUTES, vec![5.0, 2.5, 0.0]));
    ring.push(60, Sample::default());
    let day = ring.read(Resolution::new(Span::Hours24, MINUTES).unwrap(), 0);
    assert_eq!(day[0].unwrap().sessions, 2.5, "the first minute has left");
}

#[test]
fn current_minute_is_the_mean_of_its_seconds() {
    let mut ring = Ring::starting(0);
    ring.push(70, Sample { sessions: 3, ..Sample::default() });
    let day = ring.read(Resolution::new(Span::Hours24, MINUTES).unwrap(), 0);
    assert_eq!(day[MINUTES - 1].unwrap().sessions, 3.0);
    assert_eq!(day[MINUTES - 3], None, "before the start");
}

#[test]
fn number_of_points_is_limited_by_the_slots() {
    assert_eq!(Resolution::new(Span::Minutes10, 0), None);
    assert_eq!(Resolution::new(Span::Minutes10, SECONDS + 1), None);
    assert_eq!(Resolution::new(Span::Hours24, 60).unwrap().step_seconds(), 24 * 60);
    assert_eq!(Resolution::new(Span::Minutes10, 599).unwrap().step_seconds(), 2);
}
