//! What `ambassador status` shows, as one serializable value and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use crate::cluster::{BACKUP_TIER, Cluster, Member, Tier};
use crate::reconcile::{Overview, RouteView};
use crate::route::Target;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub draining: bool,
    pub routes: Vec<RouteStatus>,
    /// Sources that are lost: name, and why.
    pub lost: BTreeMap<String, String>,
    pub mistakes: Vec<String>,
    /// Sessions of each worker.
    pub workers: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub name: String,
    pub listen: String,
    /// As bound, with the ports the kernel chose.
    pub addresses: Vec<String>,
    pub targets: Vec<String>,
    pub origin: String,
    pub balance: String,
    pub endpoints: Vec<EndpointStatus>,
    pub active: usize,
    pub held: usize,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Sessions that ended, by ending; endings that never happened are left out.
    pub endings: BTreeMap<String, u64>,
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    pub address: String,
    /// With what it is: a container, a name.
    pub description: String,
    pub backup: bool,
    pub tier: u32,
    pub weight: u32,
    pub sessions: usize,
    /// By its checks: `healthy`, `unhealthy` or `unknown`. `None` where it is not checked.
    #[serde(default)]
    pub health: Option<String>,
    /// Left out for a while, and why.
    #[serde(default)]
    pub ejected: Option<String>,
}

impl Status {
    pub fn of(overview: &Overview, draining: bool) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            draining,
            routes: overview.routes.iter().map(RouteStatus::of).collect(),
            lost: overview.lost.clone(),
            mistakes: overview.mistakes.clone(),
            workers: overview.workers.sessions(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut rows =
            vec![["ROUTE", "ENDPOINT", "SESSIONS", "HELD", "UP", "DOWN", "ORIGIN"].map(str::to_owned)];
        for route in &self.routes {
            rows.push(route.row());
            rows.extend(route.endpoints.iter().map(EndpointStatus::row));
        }
        let mut text = aligned(&rows);
        for route in &self.routes {
            for problem in &route.problems {
                let _ = writeln!(text, "route {}: {problem}", route.name);
            }
        }
        for (source, why) in &self.lost {
            let _ = writeln!(text, "{source} is lost: {why}");
        }
        for mistake in &self.mistakes {
            let _ = writeln!(text, "{mistake}");
        }
        if self.draining {
            text.push_str("draining: no new sessions\n");
        }
        text
    }
}

impl RouteStatus {
    fn of(view: &RouteView) -> RouteStatus {
        let RouteView { route, cluster, addrs, problems } = view;
        let count = |of: fn(&Cluster) -> u64| cluster.as_deref().map_or(0, of);
        RouteStatus {
            name: route.options.name.clone(),
            listen: route.listen.to_string(),
            addresses: addrs.iter().map(ToString::to_string).collect(),
            targets: route.targets.iter().map(Target::to_string).collect(),
            origin: route.origin.to_string(),
            balance: route.options.balance.name().to_owned(),
            endpoints: cluster.as_deref().map(endpoints).unwrap_or_default(),
            active: cluster.as_deref().map_or(0, |cluster| cluster.counters.active.load(Relaxed)),
            held: cluster.as_deref().map_or(0, |cluster| cluster.counters.held.load(Relaxed)),
            bytes_up: count(|cluster| cluster.counters.bytes_up.load(Relaxed)),
            bytes_down: count(|cluster| cluster.counters.bytes_down.load(Relaxed)),
            endings: cluster.as_deref().map(endings).unwrap_or_default(),
            problems: problems.clone(),
        }
    }

    fn row(&self) -> [String; 7] {
        let dash = |empty: bool| if empty { "(none)".to_owned() } else { String::new() };
        [
            self.name.clone(),
            dash(self.endpoints.is_empty()),
            self.active.to_string(),
            self.held.to_string(),
            bytes(self.bytes_up),
            bytes(self.bytes_down),
            self.origin.clone(),
        ]
    }
}

fn endpoints(cluster: &Cluster) -> Vec<EndpointStatus> {
    let describe = |(tier, member): (&Tier, &Member)| EndpointStatus {
        address: member.endpoint.key.addr.to_string(),
        description: member.endpoint.key.to_string(),
        backup: tier.number >= BACKUP_TIER,
        tier: tier.number % BACKUP_TIER,
        weight: member.weight,
        sessions: member.endpoint.sessions(),
        health: member.endpoint.condition().health.map(|state| state.name().to_owned()),
        ejected: member.endpoint.condition().ejected.map(|cause| cause.name().to_owned()),
    };
    cluster.members().all().map(describe).collect()
}

fn endings(cluster: &Cluster) -> BTreeMap<String, u64> {
    let happened = cluster.counters.endings().filter(|(_, count)| *count > 0);
    happened.map(|(ending, count)| (ending.name().to_owned(), count)).collect()
}

impl EndpointStatus {
    /// What is not as usual.
    fn notes(&self) -> impl Iterator<Item = &str> {
        let backup = self.backup.then_some("backup");
        let weight = (self.weight == 0).then_some("takes none");
        let health = self.health.as_deref().filter(|state| *state != "healthy").map(|state| match state {
            "unknown" => "not checked yet",
            state => state,
        });
        let ejected = self.ejected.as_deref();
        backup.into_iter().chain(weight).chain(health).chain(ejected)
    }

    fn row(&self) -> [String; 7] {
        let mut row = <[String; 7]>::default();
        let [_, endpoint, sessions, ..] = &mut row;
        *endpoint =
            [self.description.as_str()].into_iter().chain(self.notes()).collect::<Vec<_>>().join(", ");
        *sessions = self.sessions.to_string();
        row
    }
}

/// With a binary prefix, three digits or so: `12.3 MiB`.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&""))
}

/// Columns as wide as their widest cell, two spaces between, no space at the end of a line.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = [["a".to_owned(), "b".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(aligned(&rows), "a     b\nlong\n");
    }
}
