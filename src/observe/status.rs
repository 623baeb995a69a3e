//! The status, for `ambassador status` and `/status`.

mod severity;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use humantime::{format_rfc3339_millis, format_rfc3339_seconds, parse_rfc3339};
use serde::{Deserialize, Serialize};

use super::peers::PeeringStatus;
use super::table::{ago, aligned, bytes};
use super::tls::TlsStatus;
use crate::address::BACKUP_TIER;
use crate::cluster::{Cluster, Endpoint, Member, Tier};
use crate::escape::escaped;
use crate::history::{Failure, History, Standing};
use crate::ordered::CollectOrdered;
use crate::reconcile::{
    ByHand, ConfigFile, LastSwitch, Override, Overview, RouteView, SourceView, SwitchPhase,
};
use crate::route::Protocol;

/// `SENT` is to the service, `RECEIVED` from it.
const HEAD: [&str; 8] = ["ROUTE", "ENDPOINT", "STATE", "SESSIONS", "HELD", "SENT", "RECEIVED", "ORIGIN"];

/// The state of a route or an endpoint without a problem.
const OK: &str = "ok";

/// The response to `GET /status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running program.
    pub version: String,
    /// When the process was started; RFC 3339, UTC.
    #[serde(default)]
    pub started_at: Option<String>,
    /// Whether the process takes no new sessions and waits for the others to end.
    pub draining: bool,
    /// In the order of their listeners.
    pub routes: Vec<RouteStatus>,
    /// Where routes and endpoints come from. The configuration file is first, then Docker.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
    /// Unavailable sources with the reason.
    pub lost: BTreeMap<String, String>,
    /// `None` without a configuration file.
    #[serde(default)]
    pub config: Option<ConfigStatus>,
    /// Invalid labels and conflicts of routes that exist now, one line each.
    pub mistakes: Vec<String>,
    /// Configured objects that do not exist yet.
    #[serde(default)]
    pub notices: Vec<String>,
    /// Routes that an operator removed, by name.
    pub removed: Vec<String>,
    /// The number of sessions of each worker.
    pub workers: Vec<usize>,
    /// `None` without credentials for peers.
    #[serde(default)]
    pub peering: Option<PeeringStatus>,
    /// `None` if no route has a certificate or CAs.
    #[serde(default)]
    pub tls: Option<TlsStatus>,
}

/// Where routes or endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `docker`, `file:/etc/ambassador.toml`, or a target such as `redis:6379`.
    pub name: String,
    /// Whether it is available.
    pub state: SourceState,
    /// When it last answered, whether or not with a change; RFC 3339, UTC. `None` without an answer.
    pub answered_at: Option<String>,
    /// Age of that answer in milliseconds.
    pub answered_ms_ago: Option<u64>,
    /// Why it is lost.
    pub why: Option<String>,
}

/// Whether a source is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceState {
    /// Its last answer is its current state.
    Ok,
    /// It has not answered yet.
    Waiting,
    /// It is unavailable, or a file that was refused. Its last answer is used.
    Lost,
}

/// A route, with the live counters of its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Unique; the listener, unless `name` is set.
    pub name: String,
    /// `ok`, or the most important problem in one or two words.
    #[serde(default)]
    pub state: String,
    /// 0 for `ok`; the higher, the more urgently an operator has to look at it.
    #[serde(default)]
    pub severity: u8,
    /// Since when it is ok, has a flaw (`severity` 1 and 2), is paused, or fails (4 and above): RFC 3339, UTC, to the millisecond.
    #[serde(default)]
    pub state_since: String,
    /// `None` if no session has failed.
    #[serde(default)]
    pub last_failure: Option<FailureStatus>,
    /// The listener as configured, such as `6379` or `[::1]:53/udp`.
    pub listen: String,
    /// The whole route in the syntax of an argument, with the overriding targets.
    #[serde(default)]
    pub line: String,
    /// Transport protocol of the listener: `tcp`, also for a unix socket, or `udp`.
    #[serde(default)]
    pub protocol: String,
    /// The bound addresses, with the ports chosen by the kernel.
    pub addresses: Vec<String>,
    /// Those of the last switch if it applies, otherwise those of the sources; in the syntax of routes.
    pub targets: Vec<String>,
    /// Where the route is configured, such as `argument 1`.
    pub origin: String,
    /// Name of the balancing algorithm.
    pub balance: String,
    /// In the order of their tiers.
    pub endpoints: Vec<EndpointStatus>,
    /// Removed endpoints with open sessions.
    pub leaving: Vec<EndpointStatus>,
    /// What an operator changed.
    pub by_hand: ByHandStatus,
    /// Zeros if the listener is not bound.
    #[serde(default)]
    pub descriptors: DescriptorStatus,
    /// Open sessions, including held ones.
    pub active: usize,
    /// Sessions that wait for an endpoint.
    pub held: usize,
    /// Bytes from clients to endpoints since the route was opened.
    pub bytes_up: u64,
    /// Bytes from endpoints to clients, as `bytes_up`.
    pub bytes_down: u64,
    /// The number of ended sessions by ending, without zeros.
    pub endings: BTreeMap<String, u64>,
    /// Sessions since the route was opened, rejected ones included.
    #[serde(default)]
    pub sessions_total: u64,
    /// Those of them that ended by a failure.
    #[serde(default)]
    pub failed_total: u64,
    /// Why the listener is not bound, or a target has no endpoint.
    pub problems: Vec<String>,
}

/// The last session that ended by a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureStatus {
    /// How it ended, as in the access log.
    pub ending: String,
    /// When it was seen, up to a second later: RFC 3339, UTC, to the millisecond.
    pub at: String,
}

/// An endpoint of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// IP address with port, path of a unix socket, or export of a peer.
    pub address: String,
    /// The address, and the container or name to which it belongs.
    pub description: String,
    /// Whether it belongs to a backup target.
    pub backup: bool,
    /// Tried in ascending order, backups after all others.
    pub tier: u32,
    /// Share of the new sessions of its tier; 0 for none.
    pub weight: u32,
    /// Drained by an operator.
    pub drained: bool,
    /// Its open sessions.
    pub sessions: usize,
    /// By its checks or those of its container: `healthy`, `unhealthy` or `unknown`. `None` without checks.
    #[serde(default)]
    pub health: Option<String>,
    /// The reason of its ejection by outlier detection.
    #[serde(default)]
    pub ejected: Option<String>,
    /// The error of the last failed connect or check.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Age of `last_error` in milliseconds.
    #[serde(default)]
    pub last_error_ms_ago: Option<u64>,
    /// What to do about that error, for an endpoint that is an export of a peer.
    #[serde(default)]
    pub help: Option<String>,
    /// Whether that error is its current state.
    #[serde(default)]
    pub failing: bool,
}

/// The configuration file. Times are RFC 3339, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// As given, not resolved.
    pub path: String,
    /// The last attempt to read it succeeded.
    pub ok: bool,
    /// When the routes in use were read.
    pub loaded_at: String,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When the last attempt failed.
    pub refused_at: Option<String>,
}

/// File descriptors of a route's sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorStatus {
    /// The number in use.
    pub used: u32,
    /// The number reserved for its sessions.
    pub guaranteed: u32,
    /// Whether the route is out of descriptors, and new connections wait in the backlog.
    pub accept_paused: bool,
}

/// The changes of an operator, which last until the next restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHandStatus {
    /// Whether new sessions are held until `resume`.
    pub paused: bool,
    /// The targets of the sources, if an operator has switched the route.
    pub instead_of: Option<Vec<String>>,
    /// Weights by endpoint.
    pub weights: BTreeMap<String, u32>,
    /// Endpoints that take no new sessions, as `description`.
    pub drained: Vec<String>,
    /// `None` if no operator has switched the route.
    pub switch: Option<SwitchStatus>,
    /// Whether the targets have no endpoint yet and the previous endpoints remain in use.
    pub waiting: bool,
}

/// The last switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStatus {
    /// Unique over all routes, starting at 1.
    pub number: u64,
    /// The outcome so far.
    pub state: SwitchState,
    /// The reason of the rollback, or the endpoint on trial that has not answered.
    #[serde(default)]
    pub why: Option<String>,
}

/// The outcome of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwitchState {
    /// Until it has settled or its timeout has expired.
    OnTrial,
    /// The switch is complete.
    Kept,
    /// The previous targets apply again.
    RolledBack,
}

impl Status {
    /// Returns the status of what the control loop published. `draining` is not part of an overview.
    pub fn of(overview: &Overview, draining: bool) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: overview.started_at.map(|at| format_rfc3339_seconds(at).to_string()),
            draining,
            routes: overview.routes.iter().map(|view| RouteStatus::of(view, &overview.history)).collect(),
            sources: overview.sources.iter().map(|source| SourceStatus::of(source, overview)).collect(),
            lost: overview.lost.clone(),
            config: overview.file.as_ref().map(ConfigStatus::of),
            mistakes: overview.mistakes.clone(),
            notices: overview.notices.clone(),
            removed: overview.removed.clone(),
            workers: overview.workers.sessions(),
            peering: PeeringStatus::of(overview, SystemTime::now()),
            tls: TlsStatus::of(overview, SystemTime::now()),
        }
    }

    /// Returns the status as a table with notes.
    pub fn table(&self) -> String {
        let mut rows = vec![HEAD.map(str::to_owned)];
        let routes: Vec<RouteStatus> = self.routes.iter().map(|route| self.shown(route)).collect();
        for route in &routes {
            rows.push(route.row());
            rows.extend(route.endpoints.iter().map(|endpoint| endpoint.row(None)));
            rows.extend(route.leaving.iter().map(|endpoint| endpoint.row(Some("leaving"))));
        }
        let mut text = aligned(&rows);
        for route in &routes {
            for note in route.notes() {
                let _ = writeln!(text, "route {}: {}", escaped(&route.name), escaped(&note));
            }
        }
        text.extend(self.peering.as_ref().map(PeeringStatus::text));
        text.extend(self.tls.as_ref().map(TlsStatus::text));
        if let Some(refused) = self.config.as_ref().and_then(|config| config.refused(SystemTime::now())) {
            let _ = writeln!(text, "{}", escaped(&refused));
        }
        for (source, why) in &self.lost {
            let answered = self.sources.iter().find(|status| status.name == *source);
            let age = answered.and_then(|status| status.answered_ms_ago).map(Duration::from_millis);
            let age = age.map(|age| format!("; it last answered {}", ago(age))).unwrap_or_default();
            let _ = writeln!(text, "{} is lost: {}{age}", escaped(source), escaped(why));
        }
        for line in self.mistakes.iter().chain(&self.notices) {
            let _ = writeln!(text, "{}", escaped(line));
        }
        let is_back = |name: &String| self.routes.iter().any(|route| route.name == *name);
        for name in self.removed.iter().filter(|name| !is_back(name)) {
            let name = escaped(name);
            let _ = writeln!(text, "removed by hand: {name}; `ambassador routes restore {name}` restores it");
        }
        if self.draining {
            text.push_str("draining: no new sessions\n");
        }
        text
    }
}

impl Status {
    /// Returns a route as the table has it. Why a peer is down is a note of the peer, which the endpoints do not repeat.
    fn shown(&self, route: &RouteStatus) -> RouteStatus {
        let mut route = route.clone();
        for endpoint in route.endpoints.iter_mut().chain(&mut route.leaving) {
            if self.peering.as_ref().is_some_and(|peering| peering.is_down(&endpoint.address)) {
                endpoint.last_error = Some("the peer is down".to_owned());
                endpoint.help = None;
            }
        }
        route
    }
}

impl RouteStatus {
    /// Returns the status, and records the state in the history.
    pub(crate) fn of(view: &RouteView, history: &History) -> RouteStatus {
        let RouteView { route, cluster, addrs, problems, by_hand, leaving } = view;
        let cluster = cluster.as_deref();
        let count = |of: fn(&Cluster) -> u64| cluster.map_or(0, of);
        let status = RouteStatus {
            name: route.options.name.clone(),
            state: String::new(),
            severity: 0,
            state_since: String::new(),
            last_failure: None,
            listen: route.listen.to_string(),
            line: route.to_string(),
            protocol: protocol(route.listen.protocol()).to_owned(),
            addresses: addrs.iter().map(ToString::to_string).collect(),
            targets: strings(&route.targets),
            origin: route.origin.to_string(),
            balance: route.options.balance.name().to_owned(),
            endpoints: cluster.map(|cluster| endpoints(cluster, &by_hand.change)).unwrap_or_default(),
            leaving: leaving.iter().filter_map(Weak::upgrade).filter_map(|left| leaves(&left)).collect(),
            by_hand: ByHandStatus::of(by_hand),
            descriptors: cluster.map(DescriptorStatus::of).unwrap_or_default(),
            active: cluster.map_or(0, |cluster| cluster.counters.active.load(Relaxed)),
            held: cluster.map_or(0, |cluster| cluster.counters.held.load(Relaxed)),
            bytes_up: count(|cluster| cluster.counters.traffic.up()),
            bytes_down: count(|cluster| cluster.counters.traffic.down()),
            endings: cluster.map(endings).unwrap_or_default(),
            sessions_total: count(|cluster| cluster.counters.sessions()),
            failed_total: count(|cluster| cluster.counters.failed()),
            problems: problems.clone(),
        };
        let state = if cluster.is_some() { status.state() } else { "not bound" }.to_owned();
        let status = RouteStatus { state, ..status };
        let severity = severity::of(&status);
        let kind = severity::kind(severity);
        let Standing { since, last_failure } = history.standing(&status.name, kind, SystemTime::now());
        RouteStatus {
            severity,
            state_since: format_rfc3339_millis(since).to_string(),
            last_failure: last_failure.map(FailureStatus::of),
            ..status
        }
    }

    /// Returns the state of a bound route. If no endpoint is available, it is that of the first one.
    fn state(&self) -> &str {
        match self.endpoints.first() {
            _ if self.by_hand.paused => "paused",
            None => "no endpoint",
            _ if self.held > 0 => "held",
            _ if self.descriptors.accept_paused => "out of descriptors",
            Some(_) if self.endpoints.iter().any(|endpoint| endpoint.flaws().next().is_none()) => OK,
            Some(first) => first.flaws().next().unwrap_or(OK),
        }
    }

    /// Returns whether the targets have an endpoint, and no removed endpoint has a session.
    pub(crate) fn has_settled(&self) -> bool {
        !self.by_hand.waiting && !self.endpoints.is_empty() && self.leaving.is_empty()
    }

    /// Returns notes to print below the table.
    fn notes(&self) -> Vec<String> {
        let ByHandStatus { paused, instead_of, weights, drained, switch, waiting } = &self.by_hand;
        let name = &self.name;
        let mut notes = self.problems.clone();
        if self.state != OK {
            notes.extend(self.endpoints.iter().find_map(EndpointStatus::advice));
        }
        if let DescriptorStatus { used, accept_paused: true, .. } = self.descriptors {
            notes.push(format!("out of file descriptors with {used}: new connections wait in the backlog"));
        }
        if *paused {
            notes.push(format!("paused by hand; `ambassador resume {}` ends it", self.name));
        }
        if let Some(instead_of) = instead_of {
            let (to, from) = (self.targets.join(","), instead_of.join(","));
            notes.push(format!(
                "switched by hand to {to}, instead of {from}; `ambassador switch {name} --reset` ends it"
            ));
        }
        let why = switch.as_ref().and_then(|switch| switch.why.as_deref());
        if *waiting && why.is_none() {
            let targets = self.targets.join(",");
            notes.push(format!("{targets} has no endpoint yet; the previous endpoints remain in use"));
        }
        notes.extend(weights.iter().map(|(endpoint, weight)| {
            let address = address(endpoint);
            format!(
                "weight {weight} by hand: {endpoint}; `ambassador weight {name} {address} --reset` ends it"
            )
        }));
        notes.extend(drained.iter().map(|endpoint| {
            let address = address(endpoint);
            format!("drained by hand: {endpoint}; `ambassador drain {name} {address} --undo` ends it")
        }));
        match switch.as_ref().map(|switch| switch.state) {
            Some(SwitchState::OnTrial) => notes.push(with("the switch is on trial", why)),
            Some(SwitchState::RolledBack) => notes.push(with("the last switch was rolled back", why)),
            Some(SwitchState::Kept) | None => {}
        }
        notes
    }

    fn row(&self) -> [String; 8] {
        [
            self.name.clone(),
            String::new(),
            self.state.clone(),
            self.active.to_string(),
            self.held.to_string(),
            bytes(self.bytes_up),
            bytes(self.bytes_down),
            self.origin.clone(),
        ]
    }
}

impl FailureStatus {
    fn of(Failure { ending, at }: Failure) -> FailureStatus {
        FailureStatus { ending: ending.name().to_owned(), at: format_rfc3339_millis(at).to_string() }
    }
}

impl SourceStatus {
    fn of(SourceView { name, answered }: &SourceView, overview: &Overview) -> SourceStatus {
        let why = overview.lost(name).map(str::to_owned);
        let age = answered.age();
        let state = match (&why, age) {
            (Some(_), _) => SourceState::Lost,
            (None, None) => SourceState::Waiting,
            (None, Some(_)) => SourceState::Ok,
        };
        let answered_at = answered.at().map(|at| format_rfc3339_millis(at).to_string());
        SourceStatus { name: name.clone(), state, answered_at, answered_ms_ago: age.map(milliseconds), why }
    }
}

impl ConfigStatus {
    fn of(file: &ConfigFile) -> ConfigStatus {
        let time = |time| format_rfc3339_seconds(time).to_string();
        let refused = file.refused.as_ref();
        ConfigStatus {
            path: file.path.display().to_string(),
            ok: refused.is_none(),
            loaded_at: time(file.loaded_at),
            error: refused.map(|refused| refused.why.clone()),
            refused_at: refused.map(|refused| time(refused.at)),
        }
    }

    /// Describes the last attempt if it failed.
    fn refused(&self, now: SystemTime) -> Option<String> {
        let (error, at) = (self.error.as_ref()?, self.refused_at.as_ref()?);
        let since = parse_rfc3339(at).ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
        Some(format!(
            "configuration refused {}: {error}; the routes of the last good one are in use",
            ago(since)
        ))
    }
}

impl DescriptorStatus {
    fn of(cluster: &Cluster) -> DescriptorStatus {
        let fds = &cluster.fds;
        DescriptorStatus {
            used: fds.used(),
            guaranteed: fds.guaranteed(),
            accept_paused: fds.is_accept_paused(),
        }
    }
}

impl ByHandStatus {
    fn of(by_hand: &ByHand) -> ByHandStatus {
        let ByHand { change, instead_of, switch, waiting } = by_hand;
        let Override { paused, targets: _, weights, drained } = change;
        ByHandStatus {
            paused: *paused,
            instead_of: instead_of.as_deref().map(strings),
            weights: weights.iter().map(|(key, weight)| (key.to_string(), *weight)).collect_ordered(),
            drained: strings(drained),
            switch: switch.as_ref().map(SwitchStatus::of),
            waiting: *waiting,
        }
    }
}

impl SwitchStatus {
    fn of(switch: &LastSwitch) -> SwitchStatus {
        let state = match switch.phase {
            SwitchPhase::OnTrial => SwitchState::OnTrial,
            SwitchPhase::Kept => SwitchState::Kept,
            SwitchPhase::RolledBack => SwitchState::RolledBack,
        };
        SwitchStatus { number: switch.number, state, why: switch.why.clone() }
    }
}

/// Returns the address in a description, which commands accept as well.
pub(crate) fn address(description: &str) -> &str {
    description.split(" (").next().unwrap_or(description)
}

fn with(text: &str, why: Option<&str>) -> String {
    why.map_or_else(|| text.to_owned(), |why| format!("{text}: {why}"))
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn strings<'a, T: ToString + 'a>(values: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    values.into_iter().map(ToString::to_string).collect()
}

fn endpoints(cluster: &Cluster, change: &Override) -> Vec<EndpointStatus> {
    let describe = |(tier, member): (&Tier, &Member)| EndpointStatus {
        backup: tier.number >= BACKUP_TIER,
        tier: tier.number % BACKUP_TIER,
        weight: member.weight,
        drained: change.drained.contains(&member.endpoint.key),
        ..EndpointStatus::of(&member.endpoint)
    };
    cluster.members_arc().all().map(describe).collect()
}

/// Returns `None` if the endpoint has no sessions.
fn leaves(endpoint: &Endpoint) -> Option<EndpointStatus> {
    Some(EndpointStatus::of(endpoint)).filter(|status| status.sessions > 0)
}

fn endings(cluster: &Cluster) -> BTreeMap<String, u64> {
    let happened = cluster.counters.endings().filter(|(_, count)| *count > 0);
    happened.map(|(ending, count)| (ending.name().to_owned(), count)).collect_ordered()
}

impl EndpointStatus {
    /// Returns the status without tier and weight.
    fn of(endpoint: &Endpoint) -> EndpointStatus {
        let condition = endpoint.condition();
        let last = endpoint.last_error();
        let unhealthy = endpoint.has_unhealthy_container().then(|| "unhealthy".to_owned());
        EndpointStatus {
            address: endpoint.key.addr.to_string(),
            description: endpoint.key.to_string(),
            backup: false,
            tier: 0,
            weight: 0,
            drained: false,
            sessions: endpoint.sessions(),
            health: unhealthy.or_else(|| condition.health.map(|state| state.name().to_owned())),
            ejected: condition.ejected.map(|cause| cause.name().to_owned()),
            failing: last.as_ref().is_some_and(|error| error.is_current),
            last_error_ms_ago: last.as_ref().map(|error| milliseconds(error.at.elapsed())),
            help: last.as_ref().and_then(|error| error.help).map(str::to_owned),
            last_error: last.map(|error| error.why),
        }
    }

    /// Returns why the endpoint receives no or fewer new sessions.
    pub(crate) fn flaws(&self) -> impl Iterator<Item = &str> {
        let drained = self.drained.then_some("drained");
        let health = self.health.as_deref().filter(|state| *state != "healthy").map(|state| match state {
            "unknown" => "not checked yet",
            state => state,
        });
        let is_known = self.ejected.is_some() || self.health.as_deref() == Some("unhealthy");
        let unreachable = (self.failing && !is_known).then_some("unreachable");
        drained.into_iter().chain(health).chain(self.ejected.as_deref()).chain(unreachable)
    }

    /// Returns the current error and its age.
    fn failure(&self) -> Option<String> {
        let (why, ms) = (self.last_error.as_ref()?, self.last_error_ms_ago?);
        self.failing.then(|| format!("{why} {}", ago(Duration::from_millis(ms))))
    }

    /// Returns the current error and what to check.
    fn advice(&self) -> Option<String> {
        let why = self.last_error.as_deref().filter(|_| self.failing)?;
        if let Some(help) = &self.help {
            return Some(format!("{}: {why}: {help}", self.address));
        }
        let advice = match why {
            "connection refused" => "no program listens there; is the service started, and on this port?",
            "connection timed out" => "no answer; is the host up, and does a firewall drop the packets?",
            "network is unreachable" | "host is unreachable" => {
                "there is no route to it; do the containers share a network?"
            }
            "no such file or directory" => "is the service started, and its socket mounted?",
            "permission denied" => "may the ambassador's user connect to it?",
            _ => return None,
        };
        Some(format!("{}: {why}: {advice}", self.address))
    }

    /// Returns the row of the table. `leaving` is the first state of a removed endpoint.
    fn row(&self, leaving: Option<&str>) -> [String; 8] {
        let failure = self.failure();
        let mut states: Vec<&str> =
            leaving.into_iter().chain(self.flaws()).chain(failure.as_deref()).collect();
        if states.is_empty() {
            states.push(OK);
        }
        states.extend(self.backup.then_some("backup"));
        let mut row = <[String; 8]>::default();
        let [_, endpoint, state, sessions, ..] = &mut row;
        endpoint.clone_from(&self.description);
        *state = states.join(", ");
        *sessions = self.sessions.to_string();
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(description: &str, change: impl FnOnce(&mut EndpointStatus)) -> EndpointStatus {
        let value = serde_json::json!({
            "address": description, "description": description, "backup": false, "tier": 0, "weight": 1,
            "drained": false, "sessions": 0,
        });
        let mut endpoint = serde_json::from_value(value).unwrap();
        change(&mut endpoint);
        endpoint
    }

    fn route(endpoints: Vec<EndpointStatus>, change: impl FnOnce(&mut RouteStatus)) -> RouteStatus {
        let value = serde_json::json!({
            "name": "r", "listen": "80", "addresses": [], "targets": [], "origin": "argument 1", "balance": "p2c",
            "endpoints": [], "leaving": [], "by_hand": ByHandStatus::default(), "active": 0, "held": 0, "bytes_up": 7,
            "bytes_down": 2048, "endings": {}, "problems": [],
        });
        let mut route: RouteStatus = serde_json::from_value(value).unwrap();
        route.endpoints = endpoints;
        change(&mut route);
        route.state = route.state().to_owned();
        route
    }

    fn nothing() -> Status {
        Status {
            version: String::new(),
            started_at: None,
            draining: false,
            routes: Vec::new(),
            sources: Vec::new(),
            lost: BTreeMap::new(),
            config: None,
            mistakes: Vec::new(),
            notices: Vec::new(),
            removed: Vec::new(),
            workers: Vec::new(),
            peering: None,
            tls: None,
        }
    }

    fn well() -> EndpointStatus {
        endpoint("a:1", |_| {})
    }

    fn unhealthy() -> EndpointStatus {
        endpoint("b:1", |endpoint| endpoint.health = Some("unhealthy".to_owned()))
    }

    #[test]
    fn the_state_of_a_route_is_its_most_important_problem() {
        for (route, expected) in [
            (route(vec![well(), unhealthy()], |_| {}), "ok"),
            (route(vec![unhealthy(), unhealthy()], |_| {}), "unhealthy"),
            (route(vec![unhealthy()], |route| route.held = 1), "held"),
            (route(vec![well()], |route| route.descriptors.accept_paused = true), "out of descriptors"),
            (route(vec![], |route| route.held = 1), "no endpoint"),
            (route(vec![], |route| route.by_hand.paused = true), "paused"),
            (route(vec![endpoint("a:1", |endpoint| endpoint.drained = true)], |_| {}), "drained"),
        ] {
            assert_eq!(route.state, expected, "{route:?}");
        }
    }

    #[test]
    fn the_table_has_the_state_of_each_endpoint_and_the_bytes() {
        let backup = endpoint("c:1", |endpoint| endpoint.backup = true);
        let drained = endpoint("d:1", |endpoint| {
            (endpoint.drained, endpoint.backup, endpoint.health) = (true, true, Some("unknown".to_owned()));
        });
        let route =
            route(vec![well(), unhealthy(), backup, drained], |route| route.leaving = vec![unhealthy()]);
        let status = Status { routes: vec![route], ..nothing() };
        let expected = "\
ROUTE  ENDPOINT  STATE                             SESSIONS  HELD  SENT  RECEIVED  ORIGIN
r                ok                                0         0     7 B   2.0 KiB   argument 1
       a:1       ok                                0
       b:1       unhealthy                         0
       c:1       ok, backup                        0
       d:1       drained, not checked yet, backup  0
       b:1       leaving, unhealthy                0
";
        assert_eq!(status.table(), expected);
    }

    #[test]
    fn why_a_peer_is_down_is_shown_once() {
        let exported = |address: &str| {
            endpoint(address, |endpoint| {
                endpoint.failing = true;
                (endpoint.last_error, endpoint.last_error_ms_ago) =
                    (Some("not trusted".to_owned()), Some(3000));
                endpoint.help = Some("renew it".to_owned());
            })
        };
        let peer = serde_json::json!({
            "peer": "host1", "address": "10.0.0.1:15008", "direction": "dialled", "state": "down", "tunnels": 0, "sessions": 0,
            "bytes_sent": 0, "bytes_received": 0, "last_error": "not trusted", "last_error_ms_ago": 3000, "help": "renew it",
        });
        let peering = serde_json::json!({
            "identity": "host2", "credentials": "own-ca", "listen": [], "exports": [], "peers": [peer],
            "certificates": [], "refused": null, "warnings": [],
        });
        let status = Status {
            routes: vec![route(vec![exported("peer://10.0.0.1:15008/x")], |_| {})],
            peering: Some(serde_json::from_value(peering).unwrap()),
            ..nothing()
        };
        let table = status.table();
        assert_eq!(table.matches("not trusted").count(), 1, "{table}");
        assert!(table.contains("unreachable, the peer is down 3 s ago"), "{table}");
        assert!(table.contains("peer host1 (10.0.0.1:15008): not trusted: renew it"), "{table}");
        let other =
            Status { routes: vec![route(vec![exported("peer://10.0.0.2:15008/x")], |_| {})], ..status };
        assert_eq!(other.table().matches("not trusted").count(), 3);
    }
}
