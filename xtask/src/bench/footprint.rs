//! The resources of a proxy: memory, start time, ports and size on disk.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit};

use super::child::{Process, killed_with_parent};
use super::client::Client;
use super::listening::listening_between;
use super::measure::{Bench, Metrics};
use super::place::{ECHO, Place};
use super::row::{Row, Work};
use super::stats::spread;
use super::subject::{Kind, NGINX_STREAM, Ports, Route, Subject};
use super::usage::memory_mb;
use crate::rootfs::{Rootfs, libraries};

/// socat has a process per connection: 5,000 of them would measure the machine's scheduler.
const SOCAT_CONNECTIONS: usize = 200;
const STARTS: usize = 10;
/// Time after which a proxy is considered not to start.
const START: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_micros(50);
/// Interval and maximum number of reads of the memory, and the difference that counts as none.
const SETTLE: Duration = Duration::from_millis(150);
const SETTLE_LOOKS: usize = 10;
const SETTLED_MB: f64 = 0.02;
/// The time that a proxy has to release memory.
const AFTERWARDS: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_secs(1);
const RANGE: (u16, u16) = (10_000, 10_999);
/// The target of a range. On the proxy's own address, its listeners would occupy the same ports.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

impl Bench {
    pub(super) fn memory(
        &self,
        row: &Row,
        connections: usize,
        subject: &Subject,
        place: &Place,
    ) -> Result<Metrics> {
        let connections = match subject.kind {
            Kind::Socat => SOCAT_CONNECTIONS,
            _ => connections.min(room_for_connections()),
        };
        let proxy = self.proxy(row, subject, place, ECHO)?;
        let pids = proxy.pids();
        let idle = settled_mb(&pids)?;
        let words = format!("hold --connections {connections} --seconds {}", BUSY.as_secs_f64());
        let mut client = Client::start(&self.load, &words, proxy.address)?;
        client.expect("one")?;
        let one = settled_mb(&pids)?;
        let mut after = |word: &str| {
            client.resume()?;
            client.expect(word)?;
            settled_mb(&pids)
        };
        let (opened, asked) = (after("opened")?, after("asked")?);
        after("busy")?;
        client.resume()?;
        sleep(BUSY / 2);
        let busy = total_mb(&pids)?;
        ensure!(client.outcome()?.done > 0, "no request got a reply");
        client.resume()?;
        client.expect("closed")?;
        sleep(AFTERWARDS);
        let closed = settled_mb(&pids)?;
        let each_kb = |with: f64| (with - one) * 1e3 / (connections - 1) as f64;
        Ok(named(&[
            ("idle_mb", idle),
            ("opened_kb", each_kb(opened)),
            ("asked_kb", each_kb(asked)),
            ("busy_kb", each_kb(busy)),
            ("closed_mb", closed - one),
            ("connections", connections as f64),
        ]))
    }

    /// Measures the time from exec to the first accepted connection.
    pub(super) fn start(&self, work: Work, subject: &Subject, place: &Place) -> Result<Metrics> {
        let once = |_| {
            let route = self.route(work, place, ECHO);
            let address = route.address();
            self.until(
                subject,
                &route,
                |program| Command::new(program),
                || TcpStream::connect(address).is_ok(),
            )
        };
        let times = (0..STARTS).map(|n| once(n).map(|(time, _)| time)).collect::<Result<Vec<_>>>()?;
        let spread = spread(times.into_iter().map(|time| time.as_secs_f64() * 1e3))
            .context("the proxy never started")?;
        Ok(named(&[("start_ms", spread.median)]))
    }

    /// Compares a range of ports to one port.
    pub(super) fn range(&self, row: &Row, subject: &Subject, place: &Place) -> Result<Metrics> {
        let one = self.proxy(row, subject, place, ECHO)?;
        let one_mb = settled_mb(&one.pids())?;
        drop(one);
        let (first, last) = RANGE;
        let target = SocketAddr::new(ELSEWHERE.into(), ECHO);
        let route = Route { ports: Ports::Range(first, last), target, ..self.route(row.work, place, ECHO) };
        let address = route.address();
        // Reading the kernel's table of ports takes milliseconds, so the last port of the range is timed: proxies bind
        // in order.
        let accepts = || TcpStream::connect(address).is_ok();
        let (bound, process) = self.until(subject, &route, killed_with_parent, accepts)?;
        let ports = usize::from(last - first) + 1;
        ensure!(listening_between(first, last) == ports, "the last port is bound but another one is not");
        let range_mb = settled_mb(&[process.pid()])?;
        Ok(named(&[("bound_ms", bound.as_secs_f64() * 1e3), ("range_mb", range_mb - one_mb)]))
    }

    /// Starts the proxy and returns the time until `condition` returns true.
    fn until(
        &self,
        subject: &Subject,
        route: &Route,
        run: impl Fn(&Path) -> Command,
        condition: impl Fn() -> bool,
    ) -> Result<(Duration, Process)> {
        let mut command = subject.command(route, &self.dir_for(subject)?, run)?;
        let started = Instant::now();
        let mut process = Process::start(&mut command)?;
        while !condition() {
            ensure!(started.elapsed() < START && !process.has_ended(), "{} did not start", subject.name);
            sleep(LOOK_AGAIN);
        }
        Ok((started.elapsed(), process))
    }
}

/// Measures the size of the program, alone and with all that it needs in an empty image.
pub(super) fn size(subject: &Subject) -> Result<Metrics> {
    let bytes = |path: &Path| -> Result<f64> {
        Ok(fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len() as f64)
    };
    let binary = bytes(&subject.program)?;
    let image = if let Kind::Ambassador(_) = subject.kind {
        let mut rootfs = Rootfs::new();
        rootfs.file(&subject.program, "ambassador")?;
        rootfs.into_tar()?.len() as f64
    } else {
        let module = Path::new(NGINX_STREAM);
        let module = if subject.kind == Kind::Nginx && module.exists() { bytes(module)? } else { 0.0 };
        let needed = libraries(&subject.program).iter().map(|path| bytes(path)).sum::<Result<f64>>()?;
        binary + module + needed
    };
    Ok(named(&[("binary_mb", binary / 1e6), ("image_mb", image / 1e6)]))
}

/// Returns how many connections fit, at two descriptors each and some reserve.
fn room_for_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 2).unwrap_or(usize::MAX).saturating_sub(500).max(100)
}

/// Returns the memory of these processes once it no longer changes.
fn settled_mb(pids: &[u32]) -> Result<f64> {
    let mut before = total_mb(pids)?;
    for _ in 0..SETTLE_LOOKS {
        sleep(SETTLE);
        let now = total_mb(pids)?;
        if (now - before).abs() < SETTLED_MB {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn total_mb(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| memory_mb(*pid)).sum()
}

fn named(values: &[(&str, f64)]) -> Metrics {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}
