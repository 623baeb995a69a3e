//! The content of `results.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::to_string;

use super::measure::Metrics;
use super::metric::metrics;
use super::row::Row;
use super::stats::Rounds;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) machine: BTreeMap<String, String>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) subjects: Vec<Described>,
    /// Values by row, subject and metric.
    pub(super) measured: BTreeMap<String, BTreeMap<String, BTreeMap<String, Rounds>>>,
    /// How each pair that was checked encrypts, by subject.
    #[serde(default)]
    pub(super) pairs: BTreeMap<String, String>,
    /// What was not measured, with reasons.
    pub(super) left_out: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// The subject that the ratios are computed for.
    Us,
    /// Another ambassador: an older one, or one with its access log.
    Variant,
    Peer,
    /// No proxy.
    Limit,
}

const ONE_WORKER: &str = "bulk-4";
const TWO_WORKERS: &str = "bulk-4-2w";
const RATE: &str = "gbps";
const SCALING: &str = "scaling";

impl Results {
    /// Adds the metrics of a measurement that the page shows.
    pub(super) fn add(&mut self, round: usize, row: &'static Row, subject: &str, measured: &Metrics) {
        for metric in metrics(row) {
            if let Some(value) = measured.get(metric.name).filter(|value| value.is_finite()) {
                self.insert(round, row.id, subject, metric.name, *value);
            }
        }
    }

    fn insert(&mut self, round: usize, row: &str, subject: &str, metric: &str, value: f64) {
        let subjects = self.measured.entry(row.to_owned()).or_default();
        let metrics = subjects.entry(subject.to_owned()).or_default();
        metrics.entry(metric.to_owned()).or_default().insert(round, rounded(value));
    }

    /// Returns one metric of one subject by round.
    pub(super) fn rounds(&self, row: &str, subject: &str, metric: &str) -> Rounds {
        let rounds = || self.measured.get(row)?.get(subject)?.get(metric).cloned();
        rounds().unwrap_or_default()
    }

    /// Adds the ratio of the throughput with two workers to that with one, in each round.
    pub(super) fn add_scaling(&mut self) {
        let subjects: Vec<String> = self.subjects.iter().map(|subject| subject.name.clone()).collect();
        for subject in subjects {
            let one_worker = self.rounds(ONE_WORKER, &subject, RATE);
            for (round, rate) in self.rounds(TWO_WORKERS, &subject, RATE) {
                if let Some(one_worker) = one_worker.get(&round) {
                    self.insert(round, TWO_WORKERS, &subject, SCALING, rate / one_worker);
                }
            }
        }
    }

    /// Returns the text of `results.json`, with a line for each row and subject.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        let Results { machine, settings, subjects, measured, pairs, left_out } = self;
        let mut rows = Vec::new();
        for (row, subjects) in measured {
            let line = |subject, metrics| Ok(format!("{}: {}", to_string(subject)?, to_string(metrics)?));
            let lines = subjects.iter().map(|(subject, metrics)| line(subject, metrics));
            let lines: Vec<String> = lines.collect::<serde_json::Result<_>>()?;
            rows.push(format!("{}: {{\n{}\n}}", to_string(row)?, lines.join(",\n")));
        }
        let fields = [
            format!("\"machine\": {}", to_string(machine)?),
            format!("\"settings\": {}", to_string(settings)?),
            format!("\"subjects\": {}", to_string(subjects)?),
            format!("\"measured\": {{\n{}\n}}", rows.join(",\n")),
            format!("\"pairs\": {}", to_string(pairs)?),
            format!("\"left_out\": {}", to_string(left_out)?),
        ];
        Ok(format!("{{\n{}\n}}\n", fields.join(",\n")))
    }

    pub(super) fn subjects_with(&self, role: Role) -> impl Iterator<Item = &str> {
        self.subjects.iter().filter(move |subject| subject.role == role).map(|subject| subject.name.as_str())
    }
}

/// Rounds to six significant digits, more than the page shows.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::row::ROWS;
    use super::{Described, Results, Role};

    fn add(results: &mut Results, round: usize, row: &str, subject: &str, metric: &str, value: f64) {
        let row = ROWS.iter().find(|one| one.id == row).expect("a row");
        results.add(round, row, subject, &BTreeMap::from([(metric.to_owned(), value)]));
    }

    #[test]
    fn file_has_the_metrics_that_the_page_shows_and_can_be_read_again() {
        let mut results = Results::default();
        add(&mut results, 2, "bulk-1", "we", "gbps", 1.0 / 3.0);
        add(&mut results, 2, "bulk-1", "we", "not_shown", 1.0);
        let text = results.to_json().expect("serializable");
        let read: Results = serde_json::from_str(&text).expect("what was written");
        assert_eq!(read.rounds("bulk-1", "we", "gbps"), BTreeMap::from([(2, 0.333_333)]));
        assert!(!text.contains("not_shown"), "{text}");
    }

    #[test]
    fn scaling_is_two_workers_to_one_of_the_same_subject_and_round() {
        let mut results = Results::default();
        for name in ["we", "they"] {
            results.subjects.push(Described { name: name.into(), role: Role::Peer, version: String::new() });
        }
        for (round, row, subject, rate) in [
            (0, "bulk-4", "we", 10.0),
            (0, "bulk-4-2w", "we", 15.0),
            (1, "bulk-4-2w", "we", 40.0),
            (1, "bulk-4", "we", 20.0),
            (0, "bulk-4-2w", "they", 7.0),
        ] {
            add(&mut results, round, row, subject, "gbps", rate);
        }
        results.add_scaling();
        let scaling = |subject| results.rounds("bulk-4-2w", subject, "scaling");
        assert_eq!(scaling("we"), BTreeMap::from([(0, 1.5), (1, 2.0)]));
        assert!(scaling("they").is_empty());
        assert!(results.rounds("bulk-4", "we", "scaling").is_empty());
    }
}
