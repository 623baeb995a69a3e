//! One measurement: one subject, one row, one round. The proxy is started for it and runs alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::client::Client;
use super::footprint;
use super::load::Outcome;
use super::opposite;
use super::place::{ECHO, IPERF, Place, REDIS};
use super::row::{Proxies, Row, Work};
use super::subject::{End, Kind, Ports, Route, Running, Side, Subject};
use super::usage::cpu_seconds;
use crate::process::output;

/// Values by the name of their metric (see `metric`).
pub(super) type Metrics = BTreeMap<String, f64>;

/// iperf3's server needs a pause between two tests.
const IPERF_TRIES: usize = 10;
const IPERF_PAUSE: Duration = Duration::from_millis(100);
/// redis-benchmark counts requests, not seconds: about as many as a proxy serves in one second.
const REDIS_PER_SECOND: f64 = 25_000.0;

/// A rate that every proxy serves on two slow cores.
const PACED: &str = "--connections 50 --rate 10000";
/// A rate at which requests do not wait for each other.
const MIXED: &str = "--connections 10 --rate 1000";

pub(super) struct Bench {
    /// The program that contains the client and the service.
    pub(super) load: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) seconds: f64,
    /// Each proxy gets a port of its own.
    pub(super) next_port: Cell<u16>,
    /// The program at the other end of a proxy with one TLS side, if a row needs it.
    pub(super) opposite: Option<PathBuf>,
}

/// Ports of proxies, below the ephemeral ports and distinct from those of the service.
const FIRST_PORT: u16 = 8000;
const LAST_PORT: u16 = 9999;

impl Bench {
    pub(super) fn new(load: PathBuf, dir: &Path, seconds: f64, opposite: Option<PathBuf>) -> Bench {
        Bench { load, dir: dir.to_owned(), seconds, next_port: Cell::new(FIRST_PORT), opposite }
    }

    /// Measures; this thread is in the client's namespace.
    pub(super) fn measure(&self, row: &Row, subject: &Subject, place: &Place) -> Result<Metrics> {
        let proxy = |port| self.proxy(row, subject, place, port);
        match row.work {
            Work::Bulk { streams, .. } => self.bulk(streams, &proxy(IPERF)?),
            Work::Reply { connections, payload, depth } => {
                let words = format!("--connections {connections} --payload {payload} --depth {depth}");
                self.reply(&words, &proxy(ECHO)?)
            }
            Work::Paced => self.reply(PACED, &proxy(ECHO)?),
            Work::Connect { connections } => {
                self.reply(&format!("--connections {connections} --connect"), &proxy(ECHO)?)
            }
            Work::Mixed => self.mixed(&proxy(ECHO)?),
            Work::Redis => self.redis(&proxy(REDIS)?),
            Work::Udp { gso } => self.udp(gso, &proxy(ECHO)?),
            Work::Memory { connections } => self.memory(row, connections, subject, place),
            Work::Start => self.start(row.work, subject, place),
            Work::Range => self.range(row, subject, place),
            Work::Size => footprint::size(subject),
        }
    }

    pub(super) fn proxy(&self, row: &Row, subject: &Subject, place: &Place, port: u16) -> Result<Running> {
        let dir = self.dir_for(subject)?;
        let route = self.route(row.work, place, port);
        if row.proxies == Proxies::One || subject.kind == Kind::Direct {
            return subject.start(&route, &dir);
        }
        let [near, far] = self.ends(row.proxies, subject)?;
        let far = self.far(&route, &far, place)?;
        Ok(self.near(far.address, &route, &near)?.paired_with(far))
    }

    /// Returns the proxies at the client and at the service, with their positions.
    pub(super) fn ends(&self, proxies: Proxies, subject: &Subject) -> Result<[(Subject, End); 2]> {
        let subject = || subject.clone();
        let opposite = || self.opposite.clone().map(opposite::subject).context("HAProxy is not available");
        Ok(match proxies {
            Proxies::One | Proxies::Pair => [(subject(), End::Near), (subject(), End::Far)],
            Proxies::Tls(Side::Accept, handshake) => {
                [(opposite()?, End::Opposite(Side::Connect, handshake)), (subject(), End::Tls(Side::Accept))]
            }
            Proxies::Tls(Side::Connect, handshake) => {
                [(subject(), End::Tls(Side::Connect)), (opposite()?, End::Opposite(Side::Accept, handshake))]
            }
        })
    }

    /// Starts the proxy at the service.
    pub(super) fn far(
        &self,
        route: &Route,
        (subject, end): &(Subject, End),
        place: &Place,
    ) -> Result<Running> {
        let _there = place.enter_far()?;
        let (listen, ports) = (place.service, Ports::One(self.port()));
        let route = Route { listen, ports, end: *end, ..route.clone() };
        subject.start(&route, &subdirectory(&self.dir_for(subject)?, "far")?)
    }

    /// Starts the proxy at the client.
    pub(super) fn near(
        &self,
        far: SocketAddr,
        route: &Route,
        (subject, end): &(Subject, End),
    ) -> Result<Running> {
        let route = Route { target: far, end: *end, ..route.clone() };
        subject.start(&route, &subdirectory(&self.dir_for(subject)?, "near")?)
    }

    pub(super) fn route(&self, work: Work, place: &Place, port: u16) -> Route {
        Route {
            protocol: work.protocol(),
            listen: Ipv4Addr::LOCALHOST.into(),
            ports: Ports::One(self.port()),
            target: SocketAddr::new(place.service, port),
            workers: work.workers(),
            end: End::Alone,
            secrets: self.secrets(),
        }
    }

    /// Returns the directory of certificates and keys.
    pub(super) fn secrets(&self) -> PathBuf {
        self.dir.join("secrets")
    }

    pub(super) fn port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(if port == LAST_PORT { FIRST_PORT } else { port + 1 });
        port
    }

    pub(super) fn dir_for(&self, subject: &Subject) -> Result<PathBuf> {
        subdirectory(&self.dir, &subject.name)
    }

    /// Measures bulk transfer from the client to the service with iperf3.
    fn bulk(&self, streams: usize, proxy: &Running) -> Result<Metrics> {
        let before = cpu(proxy)?;
        let received = self.iperf(streams, proxy.address)?;
        let used = cpu(proxy)? - before;
        let gigabytes = received.bytes / 1e9;
        let gbps = received.bits_per_second / 1e9;
        Ok(metrics(proxy, &[("gbps", gbps)], &[("cpu_s_per_gb", used / gigabytes)]))
    }

    fn iperf(&self, streams: usize, target: SocketAddr) -> Result<Received> {
        let mut tries = 0;
        loop {
            let mut iperf = Command::new("iperf3");
            iperf.args(["-J", "-c", &target.ip().to_string(), "-p", &target.port().to_string()]);
            iperf.args(["-t", &self.seconds.ceil().to_string(), "-P", &streams.to_string()]);
            match output(&mut iperf) {
                Ok(json) => return Ok(serde_json::from_str::<Iperf>(&json)?.end.sum_received),
                Err(error) if tries == IPERF_TRIES => return Err(error),
                Err(_) => tries += 1,
            }
            sleep(IPERF_PAUSE);
        }
    }

    fn reply(&self, words: &str, proxy: &Running) -> Result<Metrics> {
        let words = format!("reply {words} --seconds {}", self.seconds);
        let (outcome, used) = self.loaded(&words, proxy)?;
        ensure!(outcome.done > 0, "no request got a reply");
        let done = outcome.done as f64;
        let always = [
            ("per_s", done / outcome.seconds),
            ("p50_us", outcome.p50_us),
            ("p99_us", outcome.p99_us),
            ("p999_us", outcome.p999_us),
            ("failed", outcome.lost as f64),
        ];
        let mut metrics = metrics(proxy, &always, &[("cpu_us", used / done * 1e6)]);
        metrics.extend(proxy.resumed_percent()?.map(|percent| ("resumed_percent".to_owned(), percent)));
        Ok(metrics)
    }

    /// Measures requests alone, then beside a bulk stream.
    fn mixed(&self, proxy: &Running) -> Result<Metrics> {
        let words = format!("reply {MIXED} --seconds {}", self.seconds);
        let (alone, _) = self.loaded(&words, proxy)?;
        let mut bulk = Client::start(&self.load, "bulk", proxy.address)?;
        bulk.expect("ready")?;
        bulk.resume()?;
        bulk.expect("started")?;
        let (beside, _) = self.loaded(&words, proxy)?;
        bulk.resume()?;
        let bulk = bulk.outcome()?;
        ensure!(alone.done > 0 && beside.done > 0 && bulk.done > 0, "no request got a reply");
        let always = [
            ("alone_us", alone.p99_us),
            ("p50_us", beside.p50_us),
            ("p99_us", beside.p99_us),
            ("times", beside.p99_us / alone.p99_us),
            ("gbps", bulk.done as f64 * 8.0 / 1e9 / bulk.seconds),
        ];
        Ok(metrics(proxy, &always, &[]))
    }

    /// Runs a client with these arguments and returns its outcome and the CPU seconds of the proxy in the meantime.
    fn loaded(&self, words: &str, proxy: &Running) -> Result<(Outcome, f64)> {
        let mut client = Client::start(&self.load, words, proxy.address)?;
        client.expect("ready")?;
        let before = cpu(proxy)?;
        client.resume()?;
        let outcome = client.outcome()?;
        Ok((outcome, cpu(proxy)? - before))
    }

    fn udp(&self, gso: bool, proxy: &Running) -> Result<Metrics> {
        const DATAGRAM_BYTES: f64 = 1200.0;
        let gso = if gso { "--gso" } else { "" };
        let words = format!("udp --payload {DATAGRAM_BYTES} {gso} --seconds {}", self.seconds);
        let (outcome, used) = self.loaded(&words, proxy)?;
        ensure!(outcome.done > 0, "no datagram arrived");
        let (arrived, lost) = (outcome.done as f64, outcome.lost as f64);
        let gigabytes = arrived * DATAGRAM_BYTES / 1e9;
        let always =
            [("gbps", gigabytes * 8.0 / outcome.seconds), ("loss_percent", lost / (arrived + lost) * 100.0)];
        Ok(metrics(proxy, &always, &[("cpu_s_per_gb", used / gigabytes)]))
    }

    fn redis(&self, proxy: &Running) -> Result<Metrics> {
        let requests = (self.seconds * REDIS_PER_SECOND).round();
        let (ip, port) = (proxy.address.ip().to_string(), proxy.address.port().to_string());
        let mut benchmark = Command::new("redis-benchmark");
        benchmark.args(["-h", &ip, "-p", &port, "-c", "50", "-d", "64", "-t", "set", "--csv"]);
        let before = cpu(proxy)?;
        let csv = output(benchmark.args(["-n", &requests.to_string()]))?;
        let used = cpu(proxy)? - before;
        let [per_s, p50_ms, p99_ms] =
            redis_numbers(&csv).with_context(|| format!("unexpected output: {csv}"))?;
        let always = [("per_s", per_s), ("p50_us", p50_ms * 1e3), ("p99_us", p99_ms * 1e3)];
        Ok(metrics(proxy, &always, &[("cpu_us", used / requests * 1e6)]))
    }
}

/// Returns the metrics that all subjects have, and those that only a proxy has.
fn metrics(proxy: &Running, always: &[(&str, f64)], with_proxy: &[(&str, f64)]) -> Metrics {
    let with_proxy = with_proxy.iter().filter(|_| !proxy.pids().is_empty());
    always.iter().chain(with_proxy).map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// Returns the CPU seconds of all processes.
fn cpu(proxy: &Running) -> Result<f64> {
    proxy.pids().into_iter().map(cpu_seconds).sum()
}

fn subdirectory(dir: &Path, name: &str) -> Result<PathBuf> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

#[derive(Deserialize)]
struct Iperf {
    end: IperfEnd,
}

#[derive(Deserialize)]
struct IperfEnd {
    sum_received: Received,
}

#[derive(Deserialize)]
struct Received {
    bytes: f64,
    bits_per_second: f64,
}

/// Returns requests per second, and the 50th and 99th percentile in milliseconds, from the table of redis-benchmark.
fn redis_numbers(csv: &str) -> Option<[f64; 3]> {
    let mut lines =
        csv.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"')).collect::<Vec<_>>());
    let (names, values) = (lines.find(|line| line.contains(&"rps"))?, lines.next()?);
    let number = |name: &str| values.get(names.iter().position(|other| *other == name)?)?.parse().ok();
    Some([number("rps")?, number("p50_latency_ms")?, number("p99_latency_ms")?])
}

#[cfg(test)]
mod tests {
    use super::redis_numbers;

    #[test]
    fn columns_of_redis_benchmark_are_found_by_name() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                   \"p99_latency_ms\",\"max_latency_ms\"\n\
                   \"SET\",\"50000.00\",\"0.5\",\"0.1\",\"0.511\",\"0.7\",\"0.903\",\"3.1\"";
        assert_eq!(redis_numbers(csv), Some([50_000.0, 0.511, 0.903]));
        assert_eq!(redis_numbers("ERR"), None);
    }
}
