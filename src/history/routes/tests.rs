//! Readings in, samples out, with seconds as numbers.

use std::time::Duration;

use super::super::ring::Span;
use super::*;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn at(second: u64) -> SystemTime {
    START + Duration::from_secs(second)
}

fn reading(sessions: u64, active: u64, bytes: u64) -> Reading {
    Reading { sessions, active, bytes, ..Reading::default() }
}

fn failing(ending: Ending, count: u32) -> Reading {
    let mut reading = reading(u64::from(count), 0, 0);
    reading.failures[ending as usize] = count;
    reading
}

fn take(routes: &mut Routes, second: u64, open: &[(&str, Reading)]) -> Seen {
    routes.sample(second, at(second), open.iter().map(|(name, reading)| (*name, reading.clone())))
}

/// Returns the last seconds of a route.
fn last(routes: &Routes, name: &str, seconds: usize) -> Vec<Option<Bucket>> {
    let resolution = Resolution::new(Span::Minutes10, 600).unwrap();
    let read = routes.read(resolution, |wanted| wanted == name);
    read.first().map(|(_, buckets)| buckets[600 - seconds..].to_vec()).unwrap_or_default()
}

fn each<T>(buckets: &[Option<Bucket>], of: impl Fn(Bucket) -> T) -> Vec<T> {
    buckets.iter().map(|bucket| of(bucket.unwrap())).collect()
}

#[test]
fn unseen_seconds_have_no_sessions_the_mean_of_the_bytes_and_the_last_gauges() {
    let mut routes = Routes::default();
    assert!(take(&mut routes, 1, &[("r", reading(3, 2, 0))]).changed);
    assert!(take(&mut routes, 5, &[("r", reading(4, 1, 400))]).changed);
    assert!(!take(&mut routes, 6, &[("r", reading(4, 1, 400))]).changed);
    let buckets = last(&routes, "r", 6);
    assert_eq!(each(&buckets, |bucket| bucket.sessions), [3.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(each(&buckets, |bucket| bucket.active), [2, 2, 2, 2, 1, 1]);
    assert_eq!(each(&buckets, |bucket| bucket.bytes), [0.0, 100.0, 100.0, 100.0, 100.0, 0.0]);
}

#[test]
fn second_is_recorded_once() {
    let mut routes = Routes::default();
    take(&mut routes, 2, &[("r", reading(1, 0, 0))]);
    assert_eq!(take(&mut routes, 2, &[("r", reading(9, 0, 0))]), Seen::default());
    take(&mut routes, 3, &[("r", reading(9, 0, 0))]);
    assert_eq!(each(&last(&routes, "r", 2), |bucket| bucket.sessions), [1.0, 8.0]);
}

#[test]
fn route_without_traffic_is_omitted_and_a_new_one_has_no_past() {
    let mut routes = Routes::default();
    take(&mut routes, 10, &[("old", reading(0, 0, 0))]);
    take(
        &mut routes,
        11,
        &[("old", reading(1, 0, 0)), ("new", reading(1, 0, 0)), ("idle", reading(0, 0, 0))],
    );
    assert_eq!(last(&routes, "idle", 1), []);
    assert_eq!(last(&routes, "new", 2).iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    assert_eq!(each(&last(&routes, "old", 2), |bucket| bucket.sessions), [0.0, 1.0]);
}

#[test]
fn removed_route_is_kept_for_ten_minutes_and_counts_from_zero_if_it_returns() {
    let mut routes = Routes::default();
    take(&mut routes, 1, &[("r", reading(5, 0, 0)), ("idle", reading(0, 0, 0))]);
    take(&mut routes, 2, &[]);
    assert!(routes.has("r") && !routes.has("idle"));
    take(&mut routes, 4, &[("r", reading(7, 0, 0))]);
    assert_eq!(each(&last(&routes, "r", 4), |bucket| bucket.sessions), [5.0, 0.0, 0.0, 7.0]);
    take(&mut routes, 600, &[]);
    assert!(routes.has("r"));
    take(&mut routes, 604, &[]);
    assert!(!routes.has("r"));
}

#[test]
fn restarted_counters_are_new() {
    let mut routes = Routes::default();
    take(&mut routes, 1, &[("r", reading(5, 0, 100))]);
    take(&mut routes, 2, &[("r", reading(2, 0, 30))]);
    let buckets = last(&routes, "r", 2);
    assert_eq!(each(&buckets, |bucket| (bucket.sessions, bucket.bytes)), [(5.0, 100.0), (2.0, 30.0)]);
}

#[test]
fn least_recently_active_route_gives_way_and_an_active_one_never() {
    let mut routes = Routes::default();
    let names: Vec<String> = (0..RINGS_MAX + 2).map(|n| format!("{n:04}")).collect();
    let open = |range: std::ops::Range<usize>, sessions: u64| {
        let reading = move |n| if range.contains(&n) { reading(sessions, 0, 0) } else { reading(1, 0, 0) };
        names.iter().enumerate().map(move |(n, name)| (name.as_str(), reading(n))).collect::<Vec<_>>()
    };
    let all = open(0..0, 1);
    take(&mut routes, 1, &all[..RINGS_MAX]);
    take(&mut routes, 2, &open(1..RINGS_MAX, 2)[..RINGS_MAX]);
    assert_eq!(routes.sampled(), RINGS_MAX);
    take(&mut routes, 3, &open(1..RINGS_MAX, 2)[..=RINGS_MAX]);
    assert_eq!(routes.sampled(), RINGS_MAX);
    assert_eq!((last(&routes, "0000", 1), last(&routes, "1000", 1).len()), (vec![], 1));
    take(&mut routes, 4, &open(1..RINGS_MAX + 2, 3));
    assert_eq!((last(&routes, "0001", 1).len(), last(&routes, "1001", 1)), (1, vec![]));
}

#[test]
fn state_is_dated_when_it_changes_and_a_failure_by_its_ending() {
    let mut routes = Routes::default();
    assert_eq!(routes.standing("r", "ok", at(1)), Standing { since: at(1), last_failure: None });
    assert_eq!(take(&mut routes, 2, &[("r", failing(Ending::ConnectFailed, 2))]).unsettled, [0; 0]);
    let failure = |ending, second| Some(Failure { ending, at: at(second) });
    let standing = routes.standing("r", "ok", at(3));
    assert_eq!(standing, Standing { since: at(1), last_failure: failure(Ending::ConnectFailed, 2) });
    assert_eq!(routes.standing("r", "unreachable", at(4)).since, at(4));
    let mut both = failing(Ending::ConnectFailed, 3);
    both.failures[Ending::UpstreamReset as usize] = 5;
    assert_eq!(take(&mut routes, 5, &[("r", both)]).unsettled, [0], "looked at until it is ok");
    assert_eq!(routes.standing("r", "unreachable", at(6)).last_failure, failure(Ending::UpstreamReset, 5));
}

#[test]
fn held_sessions_have_the_state_looked_at_until_there_are_none() {
    let mut routes = Routes::default();
    routes.standing("r", "ok", at(0));
    let held = Reading { held: 1, is_troubled: true, ..Reading::default() };
    assert_eq!(take(&mut routes, 1, &[("r", held)]).unsettled, [0]);
    assert_eq!(take(&mut routes, 2, &[("r", Reading::default())]).unsettled, [0]);
    assert_eq!(take(&mut routes, 3, &[("r", Reading::default())]).unsettled, [0; 0]);
}

/// The numbers in docs/admin-api.md.
#[test]
fn memory_of_a_route_is_bounded() {
    let (mut idle, mut busy) = (Ring::starting(0), Ring::starting(0));
    idle.push(1, Sample { sessions: 1, ..Sample::default() });
    idle.push(30_000, Sample::default());
    for second in 0..(super::super::ring::MINUTES as u64 + 60) * 60 {
        let n = second % 7 + second / 60 % 11;
        busy.push(1, Sample { sessions: n, failed: n, held: n, active: n, bytes: n });
    }
    let bytes = |ring: &Ring| size_of::<Track>() + ring.heap_bytes();
    assert!((3_000..4_000).contains(&bytes(&idle)), "{}", bytes(&idle));
    assert!((20_000..25_000).contains(&bytes(&busy)), "{}", bytes(&busy));
}
