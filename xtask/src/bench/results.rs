//! What was measured, as `results.json` has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::measure::Metrics;
use super::stats::Rounds;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) machine: BTreeMap<String, String>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) subjects: Vec<Described>,
    pub(super) measurements: Vec<Measurement>,
    /// What was not measured, and why.
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
    /// Whom the ratios are of.
    Us,
    /// Another ambassador: an older one, or one with its access log.
    Variant,
    Peer,
    /// No proxy.
    Limit,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measurement {
    pub(super) round: usize,
    pub(super) row: String,
    pub(super) subject: String,
    pub(super) metrics: Metrics,
}

const ONE_WORKER: &str = "bulk-4";
const TWO_WORKERS: &str = "bulk-4-2w";
const RATE: &str = "gbps";

impl Results {
    /// One metric of one subject, over the rounds.
    pub(super) fn rounds(&self, row: &str, subject: &str, metric: &str) -> Rounds {
        let of = |one: &&Measurement| one.row == row && one.subject == subject;
        let value = |one: &Measurement| Some((one.round, *one.metrics.get(metric)?));
        self.measurements.iter().filter(of).filter_map(value).collect()
    }

    /// Adds how much more went through two workers than through one, in each round.
    pub(super) fn add_scaling(&mut self) {
        let one_worker: Vec<_> = self.measurements.iter().filter(|one| one.row == ONE_WORKER).collect();
        let rate = |of: &Measurement| {
            let same = one_worker.iter().find(|one| one.round == of.round && one.subject == of.subject)?;
            Some(of.metrics.get(RATE)? / same.metrics.get(RATE)?)
        };
        let scaling: Vec<_> =
            self.measurements.iter().map(|one| rate(one).filter(|_| one.row == TWO_WORKERS)).collect();
        for (one, scaling) in self.measurements.iter_mut().zip(scaling) {
            one.metrics.extend(scaling.map(|scaling| ("scaling".to_owned(), scaling)));
        }
    }

    pub(super) fn subjects_with(&self, role: Role) -> impl Iterator<Item = &str> {
        self.subjects.iter().filter(move |subject| subject.role == role).map(|subject| subject.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Measurement, Results};

    #[test]
    fn scaling_is_two_workers_to_one_of_the_same_subject_and_round() {
        let one = |round, row: &str, subject: &str, rate| Measurement {
            round,
            row: row.into(),
            subject: subject.into(),
            metrics: BTreeMap::from([("gbps".to_owned(), rate)]),
        };
        let measurements = vec![
            one(0, "bulk-4", "we", 10.0),
            one(0, "bulk-4-2w", "we", 15.0),
            one(1, "bulk-4-2w", "we", 40.0),
            one(1, "bulk-4", "we", 20.0),
            one(0, "bulk-4-2w", "they", 7.0),
        ];
        let mut results = Results { measurements, ..Results::default() };
        results.add_scaling();
        let scaling = |subject| results.rounds("bulk-4-2w", subject, "scaling");
        assert_eq!(scaling("we"), BTreeMap::from([(0, 1.5), (1, 2.0)]));
        assert!(scaling("they").is_empty());
        assert!(results.rounds("bulk-4", "we", "scaling").is_empty());
    }
}
