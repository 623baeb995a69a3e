//! The report in Markdown and its plots, from the results alone.

use std::fmt::Write as _;

use super::metric::{Metric, metrics};
use super::results::{Results, Role};
use super::row::{ROWS, Row};
use super::stats::{Spread, ratio, spread};
use super::verdict::{best_peer, verdicts};
use crate::plot::{self, Axis, Group, Scale, Series, number};

/// A plot of one metric in several rows.
struct Plot {
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    metric: &'static str,
    rows: &'static [&'static str],
}

#[rustfmt::skip]
const PLOTS: &[Plot] = &[
    Plot { file: "bulk-cpu.svg", title: "Bulk: CPU", unit: "seconds per GB, less is better", metric: "cpu_s_per_gb", rows: &["bulk-1", "bulk-4", "bulk-1-bbr", "net-bulk-1"] },
    Plot { file: "bulk-rate.svg", title: "Bulk: throughput", unit: "Gb/s, more is better", metric: "gbps", rows: &["bulk-1", "bulk-4", "bulk-4-2w", "bulk-1-bbr", "net-bulk-1"] },
    Plot { file: "request-cpu.svg", title: "Request-reply: CPU", unit: "us per operation, less is better", metric: "cpu_us", rows: &["rr-1-64", "rr-50-64", "rr-500-64", "rr-50-16k", "redis"] },
    Plot { file: "request-rate.svg", title: "Request-reply: throughput", unit: "operations per second, more is better", metric: "per_s", rows: &["rr-1-64", "rr-50-64", "rr-500-64", "rr-50-16k", "redis"] },
    Plot { file: "paced.svg", title: "99th percentile at 10,000 requests a second", unit: "us, less is better", metric: "p99_us", rows: &["paced"] },
    Plot { file: "connect.svg", title: "New connections", unit: "per second, more is better", metric: "per_s", rows: &["connect", "net-connect"] },
    Plot { file: "udp.svg", title: "UDP, 1,200 B", unit: "Gb/s delivered, more is better", metric: "gbps", rows: &["udp", "udp-gso", "net-udp"] },
    Plot { file: "pair-bulk.svg", title: "Encrypted pair: bulk", unit: "Gb/s, more is better", metric: "gbps", rows: &["pair-bulk-1", "pair-bulk-4", "pair-0ms-bulk-1", "pair-2ms-bulk-1", "pair-20ms-bulk-1"] },
    Plot { file: "pair-bulk-cpu.svg", title: "Encrypted pair: CPU of bulk", unit: "seconds per GB, less is better", metric: "cpu_s_per_gb", rows: &["pair-bulk-1", "pair-bulk-4"] },
    Plot { file: "pair-rate.svg", title: "Encrypted pair: requests and new connections", unit: "per second, more is better", metric: "per_s", rows: &["pair-rr-50-64", "pair-connect"] },
    Plot { file: "pair-connect.svg", title: "Encrypted pair: connect and first reply", unit: "median in us, less is better", metric: "p50_us", rows: &["pair-0ms-connect", "pair-2ms-connect", "pair-20ms-connect"] },
    Plot { file: "pair-mixed.svg", title: "Encrypted pair: a request beside a bulk stream", unit: "99th percentile in us, less is better", metric: "p99_us", rows: &["pair-mixed"] },
    Plot { file: "tls-cpu.svg", title: "TLS on one side: CPU of new connections", unit: "us per connection, less is better", metric: "cpu_us", rows: &["tls-accept-connect", "tls-accept-resumed", "tls-connect-connect", "tls-connect-resumed"] },
    Plot { file: "memory.svg", title: "Memory per silent connection", unit: "KB, less is better", metric: "opened_kb", rows: &["memory"] },
    Plot { file: "start.svg", title: "Start to first connection", unit: "ms, less is better", metric: "start_ms", rows: &["start"] },
];

/// The rows of the latency plot, with their numbers of connections.
const LATENCY_ROWS: &[(&str, f64)] = &[("rr-1-64", 1.0), ("rr-50-64", 50.0), ("rr-500-64", 500.0)];
const LATENCY_FILE: &str = "latency.svg";

/// Returns the page with the plots that have data.
pub(super) fn page(results: &Results) -> String {
    let results = if results.measured.is_empty() {
        "## Results\n\nNone yet: no full run has been made on a quiet machine.".to_owned()
    } else {
        body(results)
    };
    include_str!("report.md").replace("{{results}}", results.trim_end())
}

/// Returns name and content of each plot that has data.
pub(super) fn plots(results: &Results) -> Vec<(&'static str, String)> {
    let bars = PLOTS.iter().filter_map(|plot| Some((plot.file, bars(results, plot)?)));
    bars.chain(latency(results).map(|svg| (LATENCY_FILE, svg))).collect()
}

/// Returns the results alone, for the terminal.
pub(super) fn body(results: &Results) -> String {
    let mut text = String::new();
    goals(results, &mut text);
    conditions(results, &mut text);
    for (file, _) in plots(results) {
        writeln!(text, "![{}]({file})\n", file.trim_end_matches(".svg")).ok();
    }
    for row in ROWS {
        table(results, row, &mut text);
    }
    if !results.left_out.is_empty() {
        text.push_str("## Left out\n\n");
        results.left_out.iter().for_each(|line| {
            writeln!(text, "* {line}").ok();
        });
    }
    text
}

fn goals(results: &Results, text: &mut String) {
    let verdicts = verdicts(results);
    if verdicts.is_empty() {
        return;
    }
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    writeln!(text, "## Goals: {met} of {} met\n", verdicts.len()).ok();
    text.push_str("| row | | ours | theirs | ours ÷ theirs | goal | met |\n|---|---|---|---|---|---|---|\n");
    for verdict in verdicts {
        let theirs = verdict.theirs.map(|(name, theirs)| format!("{} ({name})", number(theirs.median)));
        let ratio = verdict.ratio.map(|ratio| ranged(&ratio));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            verdict.row.id,
            verdict.metric,
            number(verdict.ours.median),
            theirs.unwrap_or_default(),
            ratio.unwrap_or_default(),
            verdict.goal,
            if verdict.met { "yes" } else { "**no**" },
        )
        .ok();
    }
    text.push('\n');
}

fn conditions(results: &Results, text: &mut String) {
    text.push_str("## Machine and versions\n\n| | |\n|---|---|\n");
    let versions = results.subjects.iter().filter(|subject| !subject.version.is_empty());
    let versions = versions.map(|subject| (&subject.name, &subject.version));
    for (name, value) in results.machine.iter().chain(&results.settings).chain(versions) {
        writeln!(text, "| {name} | {value} |").ok();
    }
    text.push('\n');
    if !results.pairs.is_empty() {
        text.push_str("Encryption, as recorded between the two proxies:\n\n| | |\n|---|---|\n");
        for (name, encryption) in &results.pairs {
            writeln!(text, "| {name} | {encryption} |").ok();
        }
        text.push('\n');
    }
}

/// Writes one row: a line per subject.
fn table(results: &Results, row: &Row, text: &mut String) {
    let has = |metric: &Metric| {
        results.subjects.iter().any(|subject| !results.rounds(row.id, &subject.name, metric.name).is_empty())
    };
    let metrics: Vec<_> = metrics(row).into_iter().filter(has).collect();
    if metrics.is_empty() {
        return;
    }
    writeln!(text, "### {}\n\n`{}`; the best peer in bold\n", row.title, row.id).ok();
    let titles: Vec<_> = metrics.iter().map(|metric| metric.title).collect();
    writeln!(text, "| | {} |\n|---|{}", titles.join(" | "), "---|".repeat(metrics.len())).ok();
    for subject in &results.subjects {
        let cells: Vec<_> = metrics.iter().map(|metric| cell(results, row, metric, &subject.name)).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            writeln!(text, "| {} | {} |", subject.name, cells.join(" | ")).ok();
        }
    }
    text.push('\n');
}

/// Formats a cell: `12.3 (11.9–12.8) ×0.61`
fn cell(results: &Results, row: &Row, metric: &Metric, subject: &str) -> String {
    let theirs = results.rounds(row.id, subject, metric.name);
    let Some(value) = spread(theirs.values().copied()) else { return String::new() };
    let best = best_peer(results, row, metric) == Some(subject);
    let mut cell = if best { format!("**{}**", ranged(&value)) } else { ranged(&value) };
    let us = results.subjects_with(Role::Us).next().filter(|us| *us != subject);
    let ratio = us.and_then(|us| ratio(&results.rounds(row.id, us, metric.name), &theirs));
    if let Some(ratio) = ratio {
        write!(cell, " ×{:.2}", ratio.median).ok();
    }
    cell
}

fn ranged(value: &Spread) -> String {
    if value.low == value.high {
        return number(value.median);
    }
    format!("{} ({}–{})", number(value.median), number(value.low), number(value.high))
}

fn bars(results: &Results, plot: &Plot) -> Option<String> {
    let median = |row: &str, subject: &str| {
        spread(results.rounds(row, subject, plot.metric).into_values()).map(|value| value.median)
    };
    let rows = ROWS.iter().filter(|row| plot.rows.contains(&row.id));
    let group = |row: &Row| {
        let values: Vec<_> = results.subjects.iter().map(|subject| median(row.id, &subject.name)).collect();
        values.iter().any(Option::is_some).then(|| Group { label: row.id.to_owned(), values })
    };
    let groups: Vec<_> = rows.filter_map(group).collect();
    let subjects: Vec<_> = results.subjects.iter().map(|subject| subject.name.as_str()).collect();
    (!groups.is_empty()).then(|| plot::bars(plot.title, plot.unit, &subjects, &groups))
}

fn latency(results: &Results) -> Option<String> {
    let point = |subject: &str, (row, connections): (&str, f64)| {
        Some((connections, spread(results.rounds(row, subject, "p99_us").into_values())?.median))
    };
    let series = results.subjects.iter().map(|subject| {
        let points = LATENCY_ROWS.iter().filter_map(|row| point(&subject.name, *row)).collect();
        Series { name: subject.name.clone(), points }
    });
    let series: Vec<_> = series.collect();
    let is_line = |series: &Series| series.points.len() > 1;
    let x = Axis { label: "connections", scale: Scale::Log };
    let y = Axis { label: "us, less is better", scale: Scale::Log };
    series.iter().any(is_line).then(|| plot::lines("99th percentile of request-reply, 64 B", &x, &y, &series))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{body, page};
    use crate::bench::results::{Described, Results, Role};
    use crate::bench::row::ROWS;

    fn some() -> Results {
        let mut results = Results::default();
        for (name, role, rates) in [
            ("we", Role::Us, [10.0, 12.0]),
            ("envoy", Role::Peer, [5.0, 8.0]),
            ("direct", Role::Limit, [20.0, 20.0]),
        ] {
            results.subjects.push(Described { name: name.into(), role, version: String::new() });
            for (round, rate) in rates.into_iter().enumerate() {
                results.add(round, &ROWS[0], name, &BTreeMap::from([("gbps".to_owned(), rate)]));
            }
        }
        results
    }

    #[test]
    fn a_table_has_medians_ranges_and_our_ratio_to_each() {
        let text = body(&some());
        for line in [
            "| we | 11 (10–12) |",
            "| envoy | **6.5 (5–8)** ×1.75 |",
            "| direct | 20 ×0.55 |",
            "| bulk-1 | Gb/s | 11 | 6.5 (envoy) | 1.75 (1.5–2) | ≥ 1.05 × best peer | yes |",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("CPU s/GB"), "a metric that no subject has is no column:\n{text}");
    }

    #[test]
    fn page_without_results_has_no_goals() {
        let text = page(&Results::default());
        assert!(text.contains("None yet") && !text.contains("{{"), "{text}");
    }
}
