//! Compares the goals to the measurements.

use super::metric::{Better, Goal, Metric, metrics};
use super::results::{Results, Role};
use super::row::{ROWS, Row};
use super::stats::{Spread, ratio, spread};

pub(super) struct Verdict {
    pub(super) row: &'static Row,
    pub(super) metric: &'static str,
    pub(super) ours: Spread,
    /// The peer of the comparison and its value; `None` if the goal is a number.
    pub(super) theirs: Option<(String, Spread)>,
    /// The ratio of ours to theirs, within rounds.
    pub(super) ratio: Option<Spread>,
    /// The goal as text.
    pub(super) goal: String,
    pub(super) met: bool,
}

/// Returns a verdict for each goal whose values were measured.
pub(super) fn verdicts(results: &Results) -> Vec<Verdict> {
    let Some(us) = results.subjects_with(Role::Us).next() else { return Vec::new() };
    let judged = |row: &'static Row| {
        metrics(row).into_iter().flat_map(move |metric| {
            let goals = metric.goals.clone();
            goals
                .into_iter()
                .filter_map(move |goal| judge(results, row, &metric, us, goal))
                .collect::<Vec<_>>()
        })
    };
    ROWS.iter().flat_map(judged).collect()
}

/// Returns the peer with the best median.
pub(super) fn best_peer<'a>(results: &'a Results, row: &Row, metric: &Metric) -> Option<&'a str> {
    let median = |peer| Some((peer, spread(results.rounds(row.id, peer, metric.name).into_values())?.median));
    let peers = results.subjects_with(Role::Peer).filter_map(median);
    let best = match metric.better {
        Better::Less => peers.min_by(|one, other| one.1.total_cmp(&other.1)),
        Better::More => peers.max_by(|one, other| one.1.total_cmp(&other.1)),
    };
    best.map(|(peer, _)| peer)
}

fn judge(results: &Results, row: &'static Row, metric: &Metric, us: &str, goal: Goal) -> Option<Verdict> {
    let rounds = |subject: &str| results.rounds(row.id, subject, metric.name);
    let ours = spread(rounds(us).into_values())?;
    let peer = match goal {
        Goal::AtMost(_) => None,
        Goal::Of(name, _) => Some(name),
        Goal::OfBest(_) | Goal::AsGoodAsBest(_) => Some(best_peer(results, row, metric)?),
    };
    let theirs = peer.map(rounds);
    let ratio = theirs.as_ref().and_then(|theirs| ratio(&rounds(us), theirs));
    let theirs = theirs.and_then(|theirs| spread(theirs.into_values()));
    let met = match goal {
        Goal::AtMost(most) => ours.median <= most,
        Goal::Of(_, times) | Goal::OfBest(times) => is_met(metric.better, ratio?.median, times),
        Goal::AsGoodAsBest(slack) => match metric.better {
            Better::Less => ours.median <= theirs?.median + slack,
            Better::More => ours.median >= theirs?.median - slack,
        },
    };
    let theirs = peer.map(str::to_owned).zip(theirs);
    Some(Verdict { row, metric: metric.title, ours, theirs, ratio, goal: in_words(metric.better, goal), met })
}

fn is_met(better: Better, value: f64, limit: f64) -> bool {
    match better {
        Better::Less => value <= limit,
        Better::More => value >= limit,
    }
}

fn in_words(better: Better, goal: Goal) -> String {
    let sign = if better == Better::Less { "≤" } else { "≥" };
    match goal {
        Goal::AtMost(most) => format!("≤ {most}"),
        Goal::OfBest(times) => format!("{sign} {times} × best peer"),
        Goal::Of(peer, times) => format!("{sign} {times} × {peer}"),
        Goal::AsGoodAsBest(slack) => format!("best peer's, to {slack}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{best_peer, verdicts};
    use crate::bench::metric::metrics;
    use crate::bench::results::{Described, Results, Role};
    use crate::bench::row::ROWS;

    /// Returns results of one metric of one row in several rounds.
    fn results(row: &str, metric: &str, numbers: &[(&str, Role, &[f64])]) -> Results {
        let mut results = Results::default();
        let row = ROWS.iter().find(|one| one.id == row).expect("a row");
        for (name, role, values) in numbers {
            results.subjects.push(Described { name: (*name).into(), role: *role, version: String::new() });
            for (round, value) in values.iter().enumerate() {
                results.add(round, row, name, &BTreeMap::from([(metric.to_owned(), *value)]));
            }
        }
        results
    }

    fn met(row: &str, metric: &str, numbers: &[(&str, Role, &[f64])]) -> Vec<bool> {
        verdicts(&results(row, metric, numbers)).into_iter().map(|verdict| verdict.met).collect()
    }

    #[test]
    fn a_goal_that_is_a_number_needs_no_peer() {
        assert_eq!(met("start", "start_ms", &[("we", Role::Us, &[14.0, 15.0, 30.0])]), [true]);
        assert_eq!(met("start", "start_ms", &[("we", Role::Us, &[14.0, 15.1, 30.0])]), [false]);
    }

    #[test]
    fn each_goal_of_a_metric_is_judged_against_its_own_peer() {
        let envoy = ("envoy", Role::Peer, &[0.5][..]);
        let haproxy = ("haproxy-splice", Role::Peer, &[1.0][..]);
        let us = |value: &'static [f64]| ("we", Role::Us, value);
        assert_eq!(met("bulk-1", "cpu_s_per_gb", &[us(&[0.6]), envoy, haproxy]), [true, false]);
        assert_eq!(met("bulk-1", "cpu_s_per_gb", &[us(&[0.3]), envoy, haproxy]), [true, true]);
        assert_eq!(met("bulk-1", "cpu_s_per_gb", &[us(&[0.7]), envoy, haproxy]), [false, false]);
    }

    #[test]
    fn best_peer_is_neither_an_ambassador_nor_the_limit() {
        let numbers = [
            ("we", Role::Us, &[5.0][..]),
            ("old", Role::Variant, &[9.0]),
            ("direct", Role::Limit, &[20.0]),
            ("a", Role::Peer, &[3.0, 3.0, 99.0]),
            ("b", Role::Peer, &[4.0]),
        ];
        let row = ROWS.iter().find(|row| row.id == "bulk-1").expect("a row");
        let metric = metrics(row).into_iter().find(|metric| metric.name == "gbps").expect("a metric");
        assert_eq!(best_peer(&results("bulk-1", "gbps", &numbers), row, &metric), Some("b"));
        assert_eq!(met("bulk-1", "gbps", &numbers), [true]);
    }

    #[test]
    fn zero_loss_meets_the_goal_if_the_best_peer_has_zero_loss() {
        let peer = ("envoy", Role::Peer, &[0.0][..]);
        assert_eq!(met("udp", "loss_percent", &[("we", Role::Us, &[0.0]), peer]), [true]);
        assert_eq!(met("udp", "loss_percent", &[("we", Role::Us, &[0.2]), peer]), [false]);
    }

    #[test]
    fn unmeasured_goal_has_no_verdict() {
        assert!(met("bulk-1", "gbps", &[("we", Role::Us, &[5.0])]).is_empty());
        assert!(met("bulk-1", "gbps", &[("envoy", Role::Peer, &[5.0])]).is_empty());
    }
}
