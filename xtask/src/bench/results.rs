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

impl Results {
    /// One metric of one subject, over the rounds.
    pub(super) fn rounds(&self, row: &str, subject: &str, metric: &str) -> Rounds {
        let of = |one: &&Measurement| one.row == row && one.subject == subject;
        let value = |one: &Measurement| Some((one.round, *one.metrics.get(metric)?));
        self.measurements.iter().filter(of).filter_map(value).collect()
    }

    pub(super) fn subjects_with(&self, role: Role) -> impl Iterator<Item = &str> {
        self.subjects.iter().filter(move |subject| subject.role == role).map(|subject| subject.name.as_str())
    }
}
