//! Rounds: each measures every subject once per row.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::measure::Bench;
use super::namespace::Congestion;
use super::place::Place;
use super::results::Results;
use super::row::{Layout, Proxies, Row};
use super::subject::Subject;
use crate::interrupt;

/// The places in which the rows are measured.
pub(super) struct Places(Vec<(Layout, Place)>);

impl Places {
    /// Creates those that the rows need.
    pub(super) fn make(rows: &[&Row], load: &Path, dir: &Path, results: &mut Results) -> Result<Places> {
        let mut layouts: Vec<Layout> = Vec::new();
        for row in rows {
            if !layouts.contains(&row.layout) {
                layouts.push(row.layout);
            }
        }
        let mut places = Vec::new();
        for layout in layouts {
            let place = match layout {
                Layout::Loopback => Ok(Place::loopback(Congestion::Cubic, load, dir)?),
                Layout::Bbr => Place::loopback(Congestion::Bbr, load, dir),
                Layout::TwoHosts { round_trip_ms } => Place::two_hosts(round_trip_ms, load, dir),
            };
            match place {
                Ok(place) => places.push((layout, place)),
                Err(error) => results.left_out.push(format!("{layout:?}: {error:#}")),
            }
        }
        Ok(Places(places))
    }

    pub(super) fn of(&self, layout: Layout) -> Option<&Place> {
        self.0.iter().find(|(of, _)| *of == layout).map(|(_, place)| place)
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
    let plan = plan(rounds, rows, subjects, &results.pairs);
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
        let measured = bench.measure(row, subject, place);
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
    checked: &BTreeMap<String, String>,
) -> Vec<(usize, &'static Row, &'a Subject)> {
    let measurable = |row: &Row, subject: &Subject| {
        row.supports(subject.kind)
            && (row.proxies == Proxies::One || checked.contains_key(&row.proxies.checked_name(&subject.name)))
    };
    let mut plan = Vec::new();
    for round in 0..rounds {
        for row in rows.iter().filter(|row| round < row.work.most_rounds()) {
            let mut order: Vec<_> = subjects.iter().filter(|subject| measurable(row, subject)).collect();
            let first = round % order.len().max(1);
            order.rotate_left(first);
            plan.extend(order.into_iter().map(|subject| (round, *row, subject)));
        }
    }
    plan
}
