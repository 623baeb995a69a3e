//! The files of `examples/monitoring`: each rule, alert and query of the dashboard, with `promtool` and with a real Prometheus
//! that scrapes real ambassadors. There is no Grafana to test with: what it would request is requested here.

mod dashboard;
mod prometheus;
mod scenario;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ambassador::ending::Ending;

use crate::support::{compose_1, needs, within};
use dashboard::{Dashboard, Substituted};
use prometheus::{Guarded, Prometheus, promtool};
use scenario::Scenario;

/// Generous for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// Returns what follows `key` in the lines that begin with it.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key))
        .map(str::trim)
        .collect()
}

#[test]
fn rules_alerts_and_configuration_pass_promtool() {
    let run = needs!(promtool());
    run(&["check", "rules", "rules.yml", "alerts.yml"]);
    run(&["check", "config", "prometheus.yml"]);
    run(&["test", "rules", "rules_test.yml", "alerts_test.yml", "alerts_days_test.yml"]);
}

#[test]
fn unit_tests_show_each_alert_firing_and_silent() {
    let files = ["alerts_test.yml", "alerts_days_test.yml"].map(read);
    let tests = files.iter().flat_map(|text| text.split("  - name: ").skip(1)).collect::<Vec<_>>();
    let names: BTreeSet<&str> = tests.iter().filter_map(|test| test.lines().next()).collect();
    assert_eq!(names, values(&read("alerts.yml"), "alert:").into_iter().collect());
    for test in tests {
        assert!(
            test.contains("exp_samples: []") && test.contains("alertstate=\"firing\",severity="),
            "{test}"
        );
    }
}

#[test]
fn unit_tests_cover_each_recording_rule() {
    let tests = read("rules_test.yml");
    for name in values(&read("rules.yml"), "record:") {
        assert!(tests.contains(name), "{name}");
    }
}

/// Returns the endings of the first matcher `ending=~"..."`.
fn failures(text: &str) -> BTreeSet<String> {
    let (_, rest) = text.split_once("ending=~\"").expect("a matcher");
    rest.split('"').next().unwrap().split('|').map(str::to_owned).collect()
}

#[test]
fn failures_are_the_same_endings_everywhere() {
    let expected = Ending::ALL.iter().filter(|ending| ending.is_failure()).map(ToString::to_string);
    let expected: BTreeSet<String> = expected.collect();
    assert_eq!(failures(&read("rules.yml")), expected);
    for query in Dashboard::read().queries().iter().filter(|query| query.contains("ending=~")) {
        assert_eq!(failures(query), expected, "{query}");
    }
}

#[test]
fn compose_file_is_valid_and_its_command_passes_check() {
    let compose = needs!(compose_1());
    let config = compose.config(&file("compose.yaml"));
    assert!(config.contains("ipv4_address: 172.30.96.2"), "{config}");
    // The files that it mounts exist, under the names that prometheus.yml and the provider of Grafana use.
    let text = read("compose.yaml");
    let mounts = values(&text, "./").into_iter().filter_map(|mount| mount.split(':').next());
    let mounted: Vec<&str> = mounts.collect();
    assert_eq!(mounted.len(), 6, "{mounted:?}");
    for name in mounted {
        assert!(file(name).is_file(), "{name}");
    }
    let (command, _) = text.split_once("    ports: [\"6379").expect("the ambassador's command");
    let words: Vec<&str> = values(command, "admin").into_iter().chain(values(command, "6379=")).collect();
    assert_eq!(words, ["=172.30.96.2:9600", "-host=ambassador", "redis:6379?name=redis&health=redis"]);
    let mut check = Command::new(env!("CARGO_BIN_EXE_ambassador"));
    let [admin, host, route] = [words[0], words[1], words[2]];
    check
        .arg("check")
        .arg(format!("--admin{admin}"))
        .arg(format!("--admin{host}"))
        .arg(format!("6379={route}"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Each alert's expression has a sample when its fault exists, each recording rule and each query of the dashboard has data.
#[test]
fn queries_alerts_and_rules_have_data_of_a_real_prometheus() {
    let prometheus = needs!(Prometheus::prepare());
    let mut scenario = Scenario::start();
    let (target, token_file) = scenario.guarded();
    let prometheus =
        prometheus.scrape(&scenario.targets(), &Guarded { target: &target, token_file: &token_file });
    within(PATIENCE, "each target was scraped", || prometheus.are_up(&scenario.targets()));
    within(PATIENCE, "the target with a token was scraped", || {
        prometheus.are_up(std::slice::from_ref(&target))
    });

    let dashboard = Dashboard::read();
    let all = dashboard.substituted(&Substituted::ALL);
    let one = dashboard.substituted(&Substituted::one_route("ok"));
    let mut empty: Vec<String> = all.iter().chain(&dashboard.variables()).cloned().collect();
    // Alerts fire only in the second part.
    empty.retain(|query| !query.starts_with("ALERTS"));
    within(PATIENCE, "each query of the dashboard has data", || {
        scenario.traffic();
        empty.retain(|query| !prometheus.has_data(query));
        if empty.is_empty() { Ok(()) } else { Err(empty.join("\n")) }
    });
    for query in &one {
        prometheus.query(query);
    }

    scenario.break_everything(&prometheus);
    let alerts = prometheus.alerting_rules();
    let expected = alerts
        .iter()
        .map(|alert| alert.name.clone())
        .filter(|name| !scenario::IS_HARD_TO_PROVOKE.contains(&&**name));
    let expected: BTreeSet<String> = expected.collect();
    within(PATIENCE, "each alert fires", || {
        scenario.traffic();
        let firing = prometheus.firing();
        let missing: Vec<_> = expected.difference(&firing).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    for query in all.iter().filter(|query| query.starts_with("ALERTS")) {
        assert!(prometheus.has_data(query), "{query}");
    }
    // The numbers of the first row, which are 0 while everything is well.
    for query in all.iter().filter(|query| query.ends_with("or vector(0)")) {
        assert!(prometheus.value(query) > Some(0.0), "{query}");
    }
    for alert in alerts {
        let has_fields = ["summary", "description"].iter().all(|name| !alert.annotations[*name].is_null());
        assert!(has_fields && ["critical", "warning"].contains(&&*alert.severity), "{}", alert.name);
        if !expected.contains(&alert.name) {
            let (metric, _) = alert.query.split_once(" > 0").expect("a threshold");
            assert!(prometheus.has_data(metric), "{metric}");
        }
    }
    for text in prometheus.annotations() {
        assert!(
            !text.contains("error expanding") && !text.contains("<no value>") && !text.contains("  "),
            "{text}"
        );
    }
    for rule in prometheus.recording_rules() {
        assert!(prometheus.has_data(&rule), "{rule}");
    }
}
