//! A strict parser of the Prometheus text format.

use std::collections::{BTreeMap, BTreeSet};

/// All samples: name and labels as written, and the value.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) samples: BTreeMap<String, f64>,
    /// The type of each family.
    pub(crate) types: BTreeMap<String, String>,
}

impl Scrape {
    pub(crate) fn read(text: &str) -> Scrape {
        let mut scrape = Scrape { samples: BTreeMap::new(), types: BTreeMap::new() };
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        assert!(text.ends_with('\n'), "the last line ends");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(helped.insert(name.to_owned()), "{name}: two HELP lines");
                assert!(!help.is_empty(), "{name}");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family, "TYPE follows HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(kind != "counter" || name.ends_with("_total"), "{line}");
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else {
                scrape.sample(line, &family);
            }
        }
        scrape.check_histograms();
        scrape
    }

    pub(crate) fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let of_family = match self.types.get(family).map(String::as_str) {
            Some("histogram") => {
                ["_bucket", "_sum", "_count"].iter().any(|suffix| name == format!("{family}{suffix}"))
            }
            Some(_) => name == family,
            None => false,
        };
        assert!(of_family, "{line}: in the family {family}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
        check_labels(labels.strip_suffix('}').unwrap(), line);
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(self.samples.insert(series.to_owned(), value).is_none(), "{line}: twice");
    }

    fn check_histograms(&self) {
        for (series, count) in &self.samples {
            let Some((name, labels)) = series.split_once("_count") else { continue };
            let inf = if labels.is_empty() {
                format!("{name}_bucket{{le=\"+Inf\"}}")
            } else {
                format!("{name}_bucket{},le=\"+Inf\"}}", labels.strip_suffix('}').unwrap())
            };
            assert_eq!(self.value(&inf), *count, "{series}");
            assert!(self.samples.contains_key(&format!("{name}_sum{labels}")), "{series}");
        }
    }
}

/// Checks `a="b",c="d"`, with `\\`, `\"` and `
/// ` as the only escapes.
fn check_labels(mut labels: &str, line: &str) {
    while !labels.is_empty() {
        let (name, rest) = labels.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty(), "{line}");
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{line}")) {
                (_, '\\') => assert!(matches!(chars.next(), Some((_, '\\' | '"' | 'n'))), "{line}"),
                (end, '"') => break end,
                _ => {}
            }
        };
        labels = rest[end + 1..].strip_prefix(',').unwrap_or(&rest[end + 1..]);
    }
}
