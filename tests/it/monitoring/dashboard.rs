//! The dashboard as Grafana reads it: its structure, and its queries with the variables replaced.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{read, values};

pub(super) struct Dashboard(Value);

/// The values of the variables that queries contain.
pub(super) struct Substituted {
    instance: &'static str,
    route: String,
}

impl Substituted {
    /// The value of `allValue` of both variables.
    pub(super) const ALL: Substituted = Substituted { instance: ".*", route: String::new() };

    /// One selected route, in which Grafana escapes what has a meaning in a regular expression.
    pub(super) fn one_route(name: &str) -> Substituted {
        Substituted { instance: ".*", route: name.replace('.', "\\\\.") }
    }
}

impl Dashboard {
    pub(super) fn read() -> Dashboard {
        Dashboard(serde_json::from_str(&read("dashboard.json")).unwrap())
    }

    /// Returns the queries of panels and annotations.
    pub(super) fn queries(&self) -> Vec<String> {
        let of_panels = self.panels().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        let of_annotations = self.0["annotations"]["list"].as_array().unwrap().iter();
        let queries = of_panels.chain(of_annotations).filter_map(|query| query["expr"].as_str());
        queries.map(str::to_owned).collect()
    }

    pub(super) fn substituted(&self, by: &Substituted) -> Vec<String> {
        self.queries().iter().map(|query| by.replace(query)).collect()
    }

    /// Returns the queries of the variables, with all instances.
    pub(super) fn variables(&self) -> Vec<String> {
        let queries =
            self.list("templating").iter().filter_map(|variable| variable["query"]["query"].as_str());
        queries.map(|query| Substituted::ALL.replace(query)).collect()
    }

    fn list(&self, of: &str) -> &[Value] {
        self.0[of]["list"].as_array().unwrap()
    }

    fn panels(&self) -> impl Iterator<Item = &Value> {
        self.0["panels"].as_array().unwrap().iter()
    }
}

impl Substituted {
    fn replace(&self, query: &str) -> String {
        let Substituted { instance, route } = self;
        let route = if route.is_empty() { ".*" } else { route };
        let query =
            query.replace("$job", "ambassador").replace("$instance", instance).replace("$route", route);
        let query = query.replace("$__rate_interval", "5s");
        assert!(!query.contains('$'), "an unknown variable: {query}");
        query
    }
}

fn field<'a>(panel: &'a Value, name: &str) -> &'a str {
    panel[name].as_str().unwrap_or_else(|| panic!("no {name}: {panel}"))
}

/// Returns the columns and lines of the grid that a panel covers.
fn cells(panel: &Value) -> Vec<(u64, u64)> {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
    assert!(x + w <= 24, "wider than the grid: {panel}");
    (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))).collect()
}

#[test]
fn panels_have_distinct_numbers_and_places() {
    let dashboard = Dashboard::read();
    let mut taken = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard.panels() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for cell in cells(panel) {
            assert_eq!(
                taken.insert(cell, field(panel, "title")),
                None,
                "{cell:?} of {}",
                field(panel, "title")
            );
        }
    }
    let lowest = taken.keys().map(|(_, line)| line + 1).max().unwrap() as usize;
    assert_eq!(taken.len(), 24 * lowest, "a gap in the grid");
}

#[test]
fn panels_have_description_unit_and_the_chosen_data_source() {
    let dashboard = Dashboard::read();
    assert_eq!((&dashboard.0["schemaVersion"], &dashboard.0["uid"]), (&39.into(), &"ambassador".into()));
    let panels: Vec<&Value> = dashboard.panels().filter(|panel| panel["type"] != "row").collect();
    assert!((10..=20).contains(&panels.len()), "{}", panels.len());
    for panel in &panels {
        assert!(field(panel, "description").ends_with('.'), "{}", field(panel, "title"));
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}", field(panel, "title"));
        let targets = panel["targets"].as_array().unwrap();
        let refs: BTreeSet<&str> = targets.iter().map(|target| field(target, "refId")).collect();
        assert_eq!(refs.len(), targets.len(), "{}", field(panel, "title"));
        for queried in targets.iter().chain([*panel]) {
            assert_eq!(queried["datasource"]["uid"], "${datasource}", "{queried}");
        }
    }
    let names: Vec<&str> =
        dashboard.list("templating").iter().map(|variable| field(variable, "name")).collect();
    assert_eq!(names, ["datasource", "job", "instance", "route"]);
}

#[test]
fn descriptions_name_alerts_that_exist() {
    let alerts = read("alerts.yml");
    let alerts: BTreeSet<&str> = values(&alerts, "alert:").into_iter().collect();
    let dashboard = Dashboard::read();
    let words = |panel: &Value| {
        let text = panel["description"].as_str().unwrap_or_default().to_owned();
        text.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect::<Vec<_>>()
    };
    let named = dashboard.panels().flat_map(words).filter(|word| {
        word.strip_prefix("Ambassador").is_some_and(|rest| rest.starts_with(char::is_uppercase))
    });
    let named: BTreeSet<String> = named.collect();
    assert!(named.len() > 8, "{named:?}");
    assert!(named.iter().all(|name| alerts.contains(&**name)), "{named:?}");
}
