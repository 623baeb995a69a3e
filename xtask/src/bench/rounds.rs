//! Rounds: each measures every subject once per row.

use std::path::Path;

use anyhow::Result;

use super::measure::Bench;
use super::namespace::Congestion;
use super::place::Place;
use super::results::Results;
use super::row::{Layout, Row};
use super::subject::Subject;
use crate::interrupt;

/// The places in which the rows are measured.
pub(super) struct Places {
    loopback: Option<Place>,
    bbr: Option<Place>,
    two_hosts: Option<Place>,
}

impl Places {
    /// Creates those that the rows need.
    pub(super) fn make(rows: &[&Row], load: &Path, dir: &Path, results: &mut Results) -> Result<Places> {
        let needed = |layout| rows.iter().any(|row| row.layout == layout);
        let loopback = needed(Layout::Loopback).then(|| Place::loopback(Congestion::Cubic, load, dir));
        let mut optional = |layout, name, make: &dyn Fn() -> Result<Place>| {
            let place = needed(layout).then(make).transpose();
            place.unwrap_or_else(|error| {
                results.left_out.push(format!("{name}: {error:#}"));
                None
            })
        };
        let bbr = optional(Layout::Bbr, "BBR", &|| Place::loopback(Congestion::Bbr, load, dir));
        let two_hosts = optional(Layout::TwoHosts, "two namespaces", &|| Place::two_hosts(load, dir));
        Ok(Places { loopback: loopback.transpose()?, bbr, two_hosts })
    }

    fn of(&self, layout: Layout) -> Option<&Place> {
        match layout {
            Layout::Loopback => self.loopback.as_ref(),
            Layout::Bbr => self.bbr.as_ref(),
            Layout::TwoHosts => self.two_hosts.as_ref(),
        }
    }
}

/// Measures everything. A failure is recorded in the results and does not stop the benchmark.
pub(super) fn measure_all(
    bench: &Bench,
    rounds: usize,
    rows: &[&'static Row],
    subjects: &[Subject],
    places: &Places,
    results: &mut Results,
) -> Result<()> {
    let plan = plan(rounds, rows, subjects);
    for (index, (round, row, subject)) in plan.iter().enumerate() {
        interrupt::check()?;
        let Some(place) = places.of(row.layout) else { continue };
        eprintln!(
            "bench: {} of {}: round {}, {}, {}",
            index + 1,
            plan.len(),
            round + 1,
            row.id,
            subject.name
        );
        let inside = place.enter()?;
        let measured = bench.measure(row.work, subject, place);
        drop(inside);
        match measured {
            Ok(metrics) => results.add(*round, row, &subject.name, &metrics),
            Err(error) => {
                interrupt::check()?;
                eprintln!("bench: {error:#}");
                results.left_out.push(format!(
                    "{} of {}, round {}: {error:#}",
                    row.id,
                    subject.name,
                    round + 1
                ));
            }
        }
    }
    Ok(())
}

/// Goes row by row, so that subjects that are compared are measured within seconds of each other; in each round another
/// subject is first.
fn plan<'a>(
    rounds: usize,
    rows: &[&'static Row],
    subjects: &'a [Subject],
) -> Vec<(usize, &'static Row, &'a Subject)> {
    let mut plan = Vec::new();
    for round in 0..rounds {
        for row in rows.iter().filter(|row| round < row.work.most_rounds()) {
            let mut order: Vec<_> =
                subjects.iter().filter(|subject| row.work.supports(subject.kind)).collect();
            let first = round % order.len().max(1);
            order.rotate_left(first);
            plan.extend(order.into_iter().map(|subject| (round, *row, subject)));
        }
    }
    plan
}
