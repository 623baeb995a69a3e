//! Network namespaces for the measurements, so that the machine's firewall, busy ports and sysctls do not matter. The
//! main thread enters them, and all processes that it starts run in them.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::child::{Process, killed_with_parent};
use super::listening::{Protocol, listens};
use super::namespace::{Congestion, Namespace, NamespaceGuard};
use super::slow_link;
use crate::process::{command, find, succeed, wait_until};

/// Ports of the service. Without root they are on the machine itself, where they are normally free.
pub(super) const ECHO: u16 = 7001;
pub(super) const REDIS: u16 = 7002;
pub(super) const IPERF: u16 = 7003;
/// The port of the service with which pairs are checked.
pub(super) const MIRROR: u16 = 7004;

const NETWORK: &str = "10.78.0.0/24";
const CLIENT_IP: &str = "10.78.0.1";
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const START: Duration = Duration::from_secs(10);

/// The client's side, with the proxy, and a service: on the same loopback or at the other end of a veth pair.
pub(super) struct Place {
    pub(super) service: IpAddr,
    client: Option<Namespace>,
    servers: Vec<Process>,
    /// The service's side, if it is another namespace.
    far: Option<Namespace>,
}

impl Place {
    /// Creates one namespace; uses the machine's own without root.
    pub(super) fn loopback(congestion: Congestion, load: &Path, dir: &Path) -> Result<Place> {
        let is_root = crate::sudo::is_root();
        ensure!(
            is_root || congestion == Congestion::Cubic,
            "{} needs a namespace, and that root",
            congestion.name()
        );
        let client = is_root.then(|| Namespace::new(congestion)).transpose()?;
        let mut place = Place { service: Ipv4Addr::LOCALHOST.into(), client, servers: Vec::new(), far: None };
        let inside = place.enter()?;
        let servers = serve(place.service, load, dir)?;
        drop(inside);
        place.servers = servers;
        Ok(place)
    }

    /// Creates two namespaces joined by a veth pair, which the kernel removes with them, or by a slower link.
    pub(super) fn two_hosts(round_trip_ms: u32, load: &Path, dir: &Path) -> Result<Place> {
        ensure!(crate::sudo::is_root(), "network namespaces need root, or sudo without a password");
        let congestion = Congestion::Cubic;
        let (near, far) = (Namespace::new(congestion)?, Namespace::new(congestion)?);
        let link = if round_trip_ms == 0 {
            let [a, b] = [&near, &far].map(Namespace::pid);
            succeed(&mut command(&format!("ip link add eth0 netns {a} type veth peer name eth0 netns {b}")))?;
            Vec::new()
        } else {
            slow_link::start(round_trip_ms, [&near, &far], load, dir)?
        };
        for (namespace, ip) in [(&near, CLIENT_IP), (&far, &SERVICE_IP.to_string())] {
            let _inside = namespace.enter()?;
            succeed(&mut command(&format!("ip addr add {ip}/24 dev eth0")))?;
            succeed(&mut command("ip link set eth0 up"))?;
            let route = format!("{NETWORK} dev eth0 proto kernel scope link src {ip}");
            succeed(&mut command(&format!("ip route change {route} congctl {}", congestion.name())))?;
        }
        let service = IpAddr::V4(SERVICE_IP);
        let inside = far.enter()?;
        let mut servers = serve(service, load, dir)?;
        drop(inside);
        servers.extend(link);
        Ok(Place { service, client: Some(near), servers, far: Some(far) })
    }

    /// Moves this thread, and the processes that it starts, to the client's side until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Option<NamespaceGuard>> {
        self.client.as_ref().map(Namespace::enter).transpose()
    }

    /// Does the same with the service's side; returns `None` if it is the client's.
    pub(super) fn enter_far(&self) -> Result<Option<NamespaceGuard>> {
        self.far.as_ref().map(Namespace::enter).transpose()
    }
}

/// Starts the servers in the namespace of this thread.
fn serve(ip: IpAddr, load: &Path, dir: &Path) -> Result<Vec<Process>> {
    let mut echo = killed_with_parent(load);
    echo.args(["bench-load", "serve", &SocketAddr::new(ip, ECHO).to_string()]);
    let mut servers = vec![(echo, ECHO)];
    if find("iperf3").is_some() {
        servers.push((words("iperf3", &format!("-s -B {ip} -p {IPERF}")), IPERF));
    }
    if find("redis-server").is_some() {
        let options = "--appendonly no --protected-mode no --loglevel warning";
        let mut redis = words("redis-server", &format!("--bind {ip} --port {REDIS} {options}"));
        redis.args(["--save", ""]);
        servers.push((redis, REDIS));
    }
    let start = |(mut command, port): (Command, u16)| {
        let log = File::create(dir.join(format!("server-{port}.log")))?;
        let mut process = Process::start(command.current_dir(dir).stdout(log.try_clone()?).stderr(log))?;
        let up = wait_until(START, || listens(port, Protocol::Tcp) || process.has_ended())?;
        ensure!(up && !process.has_ended(), "the service on port {port} did not start");
        Ok(process)
    };
    servers.into_iter().map(start).collect()
}

fn words(program: &str, words: &str) -> Command {
    let mut command = killed_with_parent(Path::new(program));
    command.args(words.split_whitespace());
    command
}
