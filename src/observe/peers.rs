//! The peers, for `status` and `/metrics`: our identity, the tunnels, why some peers have none, and our certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use super::exposition::{Exposition, Kind};
use super::table::{age, ago, aligned, bytes};
use crate::address::{EndpointAddr, PeerAddr, PeerVia};
use crate::credentials::{CertificateInfo, Credentials, Reason};
use crate::escape::escaped;
use crate::ordered::CollectOrdered;
use crate::reconcile::{Overview, Peering};
use crate::route::{Listen, Protocol};
use crate::tunnel::{DialledPeer, Direction, Tunnel};

const HEAD: [&str; 10] =
    ["PEER", "ADDRESS", "DIRECTION", "STATE", "TUNNELS", "SESSIONS", "RTT", "AGE", "SENT", "RECEIVED"];

/// From when on `status` warns of the end of a certificate.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Peers that have series of their own. Identities come from certificates of our CA; a foreign CA may have many.
const LABELS_MAX: usize = 1_000;
/// The label of all others.
const OTHERS: &str = "(other)";

/// The peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeeringStatus {
    /// Our identity, as peers see it.
    pub identity: String,
    /// What authenticates peers: `secret`, `own-ca` or `foreign-ca`.
    pub credentials: String,
    /// The addresses on which peers can dial us.
    pub listen: Vec<String>,
    /// The names of the routes that are offered to peers.
    pub exports: Vec<String>,
    /// The peers that have a tunnel, and those that a route or `--peer-dial` needs.
    pub peers: Vec<PeerStatus>,
    /// The certificates in our files. None with a secret, whose certificates renew themselves.
    pub certificates: Vec<CertificateStatus>,
    /// Why the files of the credentials could not be read again.
    pub refused: Option<String>,
    /// What should be changed, such as the permissions of a key.
    pub warnings: Vec<String>,
}

/// A peer at one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its identity; the host in the route if it has not answered yet.
    pub peer: String,
    /// Its address, with the port if we dial it.
    pub address: String,
    /// `dialled` by this process, or `accepted`.
    pub direction: String,
    /// `ok`; `draining` if its tunnels take no new sessions; `idle` without a tunnel while none is needed; or `down`.
    pub state: String,
    /// The number of its tunnels.
    pub tunnels: usize,
    /// The number of sessions in them.
    pub sessions: usize,
    /// The shortest of the last round trips of its tunnels, in microseconds.
    pub rtt_us: Option<u64>,
    /// Age of its oldest tunnel in milliseconds.
    pub age_ms: Option<u64>,
    /// Bytes sent in the current tunnels, as they are on the wire.
    pub bytes_sent: u64,
    /// Bytes received, as `bytes_sent`.
    pub bytes_received: u64,
    /// Why it is down.
    pub last_error: Option<String>,
    /// Age of `last_error` in milliseconds.
    pub last_error_ms_ago: Option<u64>,
    /// What to do about `last_error`.
    pub help: Option<String>,
}

/// A certificate in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// `peer-cert`, `peer-ca`, and `peer-ca-2` and so on for further CAs of the file; the name of a certificate of routes, numbered in
    /// the same way.
    pub name: String,
    /// Our identity, or the subject of the CA.
    pub identity: String,
    /// Path of the file.
    pub path: String,
    /// The end of its validity: RFC 3339, UTC.
    pub not_after: String,
    /// Seconds until then; negative afterwards.
    pub expires_in_seconds: i64,
}

impl PeeringStatus {
    /// Returns `None` without credentials for peers.
    pub(super) fn of(overview: &Overview, now: SystemTime) -> Option<PeeringStatus> {
        let peering = overview.peering.as_ref()?;
        let credentials = peering.peers.credentials()?;
        Some(PeeringStatus {
            identity: credentials.identity().identity.to_string(),
            credentials: credentials.kind().as_str().to_owned(),
            listen: peering.listen.iter().map(ToString::to_string).collect(),
            exports: exports(overview),
            peers: peers(overview, peering),
            certificates: certificates(credentials, now),
            refused: credentials.refused().map(|error| error.one_line()),
            warnings: credentials.warnings(),
        })
    }

    /// Returns the peers as a table, with notes.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if !self.peers.is_empty() {
            let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned))
                .chain(self.peers.iter().map(PeerStatus::row))
                .collect();
            text = aligned(&rows);
        }
        for note in self.notes() {
            let _ = writeln!(text, "{}", escaped(&note));
        }
        text
    }

    /// Returns whether this endpoint is an export of a peer that is down.
    pub(super) fn is_down(&self, endpoint: &str) -> bool {
        let Some((remote, _export)) = endpoint.strip_prefix("peer://").and_then(|rest| rest.split_once('/'))
        else {
            return false;
        };
        self.peers.iter().any(|peer| peer.address == remote && peer.last_error.is_some())
    }

    fn notes(&self) -> Vec<String> {
        let PeeringStatus { identity, listen, exports, peers, certificates, refused, warnings, .. } = self;
        let mut own = format!("peers see this host as {identity}");
        for (what, list) in [("; they can dial ", listen), ("; they can use ", exports)] {
            if !list.is_empty() {
                own += &format!("{what}{}", list.join(", "));
            }
        }
        let refused = refused
            .iter()
            .map(|why| format!("peer credentials not reloaded, the previous ones stay in use: {why}"));
        let mut notes = vec![own];
        notes.extend(peers.iter().filter_map(PeerStatus::note));
        notes.extend(certificates.iter().filter_map(CertificateStatus::note));
        notes.extend(refused.chain(warnings.iter().cloned()));
        notes
    }
}

/// Returns the names of the routes that are offered to peers.
fn exports(overview: &Overview) -> Vec<String> {
    let export = |listen: &Listen| match listen {
        Listen::Peer { protocol: Protocol::Tcp, name } => Some(name.clone()),
        Listen::Peer { protocol: Protocol::Udp, name } => Some(format!("{name}/udp")),
        Listen::Inet { .. } | Listen::Names { .. } | Listen::Unix(_) => None,
    };
    overview.routes.iter().filter_map(|view| export(&view.route.listen)).collect()
}

/// Returns the peers that have tunnels, then those that have none and are needed.
fn peers(overview: &Overview, peering: &Peering) -> Vec<PeerStatus> {
    let mut found: BTreeMap<(String, String, &str), PeerStatus> = BTreeMap::new();
    for tunnel in peering.peers.tunnels() {
        let (peer, address) = (tunnel.peer.identity.to_string(), address(&tunnel));
        let direction = tunnel.direction.as_str();
        let key = (peer.clone(), address.clone(), direction);
        found
            .entry(key)
            .or_insert_with(|| PeerStatus::without_tunnels(peer, address, direction))
            .add(&tunnel);
    }
    let dialled: BTreeSet<String> = found
        .values()
        .filter(|peer| peer.direction == Direction::Dialled.as_str())
        .map(|peer| peer.address.clone())
        .collect_ordered();
    let known: BTreeMap<PeerVia, DialledPeer> = peering.peers.dialled().into_iter().collect_ordered();
    let needed = needed(overview, peering, &known);
    let without = needed.iter().filter(|via| !dialled.contains(&via.remote()));
    let without = without.map(|via| PeerStatus::of(via, known.get(via)));
    let unresolved = peering.dial.iter().filter(|dial| !needed.iter().any(|via| via.name() == dial.host));
    let unresolved = unresolved.map(|dial| PeerStatus::unresolved(&dial.host, dial.to_string()));
    let mut all: Vec<PeerStatus> = found.into_values().collect();
    all.extend(without.chain(unresolved));
    all
}

/// Returns the peers that a route or `--peer-dial` dials.
fn needed(
    overview: &Overview,
    peering: &Peering,
    known: &BTreeMap<PeerVia, DialledPeer>,
) -> BTreeSet<PeerVia> {
    let mut needed = BTreeSet::new();
    for cluster in overview.routes.iter().filter_map(|view| view.cluster.as_ref()) {
        for (_, member) in cluster.members().all() {
            if let EndpointAddr::Peer(peer) = &member.endpoint.key.addr
                && let PeerAddr { via: PeerVia::Dial { .. }, .. } = &**peer
            {
                needed.insert(peer.via.clone());
            }
        }
    }
    let is_kept = |via: &&PeerVia| peering.dial.iter().any(|dial| dial.host == via.name());
    needed.extend(known.keys().filter(is_kept).cloned());
    needed
}

fn address(tunnel: &Tunnel) -> String {
    match tunnel.direction {
        Direction::Dialled => tunnel.remote.to_string(),
        // Its port is that of one connection.
        Direction::Accepted => tunnel.remote.ip().to_string(),
    }
}

fn certificates(credentials: &Credentials, now: SystemTime) -> Vec<CertificateStatus> {
    credentials.certificates().into_iter().map(|info| CertificateStatus::of(info, now)).collect()
}

fn seconds_until(time: SystemTime, now: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    time.duration_since(now).map_or_else(|past| -seconds(past.duration()), seconds)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl PeerStatus {
    fn without_tunnels(peer: String, address: String, direction: &str) -> PeerStatus {
        PeerStatus {
            peer,
            address,
            direction: direction.to_owned(),
            state: "idle".to_owned(),
            tunnels: 0,
            sessions: 0,
            rtt_us: None,
            age_ms: None,
            bytes_sent: 0,
            bytes_received: 0,
            last_error: None,
            last_error_ms_ago: None,
            help: None,
        }
    }

    fn of(via: &PeerVia, known: Option<&DialledPeer>) -> PeerStatus {
        let identity = known.and_then(|known| known.identity.as_deref());
        let peer = identity.unwrap_or_else(|| via.name()).to_owned();
        let status = PeerStatus::without_tunnels(peer, via.remote(), Direction::Dialled.as_str());
        let Some(failure) = known.and_then(|known| known.failure.as_ref()) else { return status };
        PeerStatus {
            state: "down".to_owned(),
            last_error: Some(failure.message.clone()),
            last_error_ms_ago: Some(milliseconds(failure.at.elapsed())),
            help: failure.help.map(str::to_owned),
            ..status
        }
    }

    fn unresolved(host: &str, address: String) -> PeerStatus {
        PeerStatus {
            state: "down".to_owned(),
            last_error: Some("no address of it is known yet".to_owned()),
            help: Some(format!("check the name with `ambassador peer check {address}`")),
            ..PeerStatus::without_tunnels(host.to_owned(), address, Direction::Dialled.as_str())
        }
    }

    fn add(&mut self, tunnel: &Tunnel) {
        let (received, sent) = tunnel.bytes();
        let rtt = tunnel.rtt().and_then(|rtt| u64::try_from(rtt.as_micros()).ok());
        self.tunnels += 1;
        self.sessions += tunnel.streams();
        self.rtt_us = self.rtt_us.into_iter().chain(rtt).min();
        self.age_ms = self.age_ms.max(Some(milliseconds(tunnel.began().elapsed())));
        self.bytes_sent += sent;
        self.bytes_received += received;
        if !tunnel.is_closing() {
            self.state = "ok".to_owned();
        } else if self.state != "ok" {
            self.state = "draining".to_owned();
        }
    }

    /// Returns why the peer is down.
    fn note(&self) -> Option<String> {
        let why = self.last_error.as_ref()?;
        let help = self.help.as_ref().map(|help| format!(": {help}")).unwrap_or_default();
        Some(format!("peer {} ({}): {why}{help}", self.peer, self.address))
    }

    fn row(&self) -> [String; 10] {
        let since = self.last_error_ms_ago.map(|ms| format!(" {}", ago(Duration::from_millis(ms))));
        let none = || "-".to_owned();
        #[expect(clippy::cast_precision_loss, reason = "a round trip of years would be rounded")]
        let rtt = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
        [
            self.peer.clone(),
            self.address.clone(),
            self.direction.clone(),
            format!("{}{}", self.state, since.unwrap_or_default()),
            self.tunnels.to_string(),
            self.sessions.to_string(),
            self.rtt_us.map_or_else(none, rtt),
            self.age_ms.map_or_else(none, |ms| age(Duration::from_millis(ms))),
            bytes(self.bytes_sent),
            bytes(self.bytes_received),
        ]
    }

    /// Returns whether the peer answers. `None` if no tunnel to it was needed yet.
    fn is_up(&self) -> Option<bool> {
        match (self.tunnels, self.state.as_str()) {
            (0, "down") => Some(false),
            (0, _) => None,
            (_, _) => Some(true),
        }
    }
}

impl CertificateStatus {
    pub(super) fn of(
        CertificateInfo { name, identity, not_after, path }: CertificateInfo,
        now: SystemTime,
    ) -> CertificateStatus {
        CertificateStatus {
            name,
            identity,
            path: path.display().to_string(),
            not_after: format_rfc3339_seconds(not_after).to_string(),
            expires_in_seconds: seconds_until(not_after, now),
        }
    }

    /// Returns a warning before the certificate expires.
    pub(super) fn note(&self) -> Option<String> {
        let CertificateStatus { name, identity, path, not_after, expires_in_seconds: left } = self;
        let subject = format!("certificate {name} ({identity}, {path})");
        match u64::try_from(*left).map(Duration::from_secs) {
            Ok(left) if left > WARN_BEFORE => None,
            Ok(left) => {
                Some(format!("{subject} expires in {}, at {not_after}: write a new one over it", age(left)))
            }
            Err(_) => Some(format!("{subject} expired at {not_after}: write a new one over it")),
        }
    }
}

/// What the metrics have of one peer, at all its addresses.
#[derive(Default)]
struct Series {
    up: Option<bool>,
    dialled: usize,
    accepted: usize,
    streams: usize,
    rtt_us: Option<u64>,
}

impl Series {
    fn add(&mut self, peer: &PeerStatus) {
        self.up = match (self.up, peer.is_up()) {
            (Some(one), Some(other)) => Some(one || other),
            (one, other) => one.or(other),
        };
        if peer.direction == Direction::Dialled.as_str() {
            self.dialled += peer.tunnels;
        } else {
            self.accepted += peer.tunnels;
        }
        self.streams += peer.sessions;
        self.rtt_us = self.rtt_us.into_iter().chain(peer.rtt_us).min();
    }
}

/// Writes the metrics of the peers. None without credentials.
pub(super) fn metrics(to: &mut Exposition, overview: &Overview) {
    let Some(peering) = &overview.peering else { return };
    let mut all: BTreeMap<String, Series> = BTreeMap::new();
    for peer in peers(overview, peering) {
        let is_known = all.contains_key(&peer.peer) || all.len() < LABELS_MAX;
        let label = if is_known { peer.peer.clone() } else { OTHERS.to_owned() };
        all.entry(label).or_default().add(&peer);
    }
    let help = "Whether the peer answers. 0 if the last dial failed, or the last tunnel was lost.";
    to.family("ambassador_peer_up", Kind::Gauge, help);
    for (peer, series) in &all {
        if let Some(is_up) = series.up {
            to.sample(&[("peer", peer)], u8::from(is_up));
        }
    }
    to.family("ambassador_peer_tunnels", Kind::Gauge, "Tunnels now, by which side dialled.");
    for (peer, Series { dialled, accepted, .. }) in &all {
        to.sample(&[("peer", peer), ("direction", Direction::Dialled.as_str())], dialled);
        to.sample(&[("peer", peer), ("direction", Direction::Accepted.as_str())], accepted);
    }
    to.family("ambassador_peer_streams", Kind::Gauge, "Sessions in the tunnels of the peer now.");
    for (peer, series) in &all {
        to.sample(&[("peer", peer)], series.streams);
    }
    to.family(
        "ambassador_peer_rtt_seconds",
        Kind::Gauge,
        "The shortest of the last round trips of its tunnels.",
    );
    for (peer, rtt) in all.iter().filter_map(|(peer, series)| Some((peer, series.rtt_us?))) {
        to.sample(&[("peer", peer)], Duration::from_micros(rtt).as_secs_f64());
    }
    handshakes(to, peering);
}

fn handshakes(to: &mut Exposition, peering: &Peering) {
    to.family("ambassador_peer_handshake_failures_total", Kind::Counter, "Failed TLS handshakes, by reason.");
    let failures = peering.peers.failures();
    for reason in Reason::ALL {
        let count = failures.get(&reason).copied().unwrap_or_default();
        to.sample(&[("reason", reason.as_str())], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(expires_in_seconds: i64) -> Option<String> {
        let certificate = CertificateStatus {
            name: "peer-cert".to_owned(),
            identity: "web".to_owned(),
            path: "/c.pem".to_owned(),
            not_after: "2026-12-03T10:00:00Z".to_owned(),
            expires_in_seconds,
        };
        certificate.note()
    }

    #[test]
    fn certificate_is_warned_of_from_thirty_days_before() {
        const DAY: i64 = 86_400;
        assert_eq!(certificate(30 * DAY + 1), None);
        let soon = "certificate peer-cert (web, /c.pem) expires in 2d 1h, at 2026-12-03T10:00:00Z: write a new one over it";
        assert_eq!(certificate(2 * DAY + 3600).as_deref(), Some(soon));
        let past =
            "certificate peer-cert (web, /c.pem) expired at 2026-12-03T10:00:00Z: write a new one over it";
        assert_eq!(certificate(-1).as_deref(), Some(past));
    }

    #[test]
    fn peer_at_two_addresses_is_up_while_one_answers() {
        let at = |state: &str, tunnels, rtt_us| PeerStatus {
            state: state.to_owned(),
            tunnels,
            rtt_us,
            ..PeerStatus::without_tunnels("a".to_owned(), String::new(), "dialled")
        };
        let mut series = Series::default();
        series.add(&at("idle", 0, None));
        assert_eq!(series.up, None);
        series.add(&at("down", 0, None));
        assert_eq!(series.up, Some(false));
        series.add(&at("ok", 2, Some(400)));
        series.add(&at("ok", 1, Some(300)));
        assert_eq!((series.up, series.dialled, series.rtt_us), (Some(true), 3, Some(300)));
    }
}
