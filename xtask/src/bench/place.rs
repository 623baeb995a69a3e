//! Where it is measured: network namespaces of our own, so that neither the machine's firewall nor its busy ports nor
//! its sysctls have a say. The main thread moves in; what it starts is started there.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::child::{Process, tied};
use super::listening::{Protocol, listens};
use super::namespace::{Congestion, Inside, Namespace};
use crate::process::{command, eventually, find, succeed};

/// Ports of the service. Without root they are the machine's, and these nobody has.
pub(super) const ECHO: u16 = 7001;
pub(super) const REDIS: u16 = 7002;
pub(super) const IPERF: u16 = 7003;

const NETWORK: &str = "10.78.0.0/24";
const CLIENT_IP: &str = "10.78.0.1";
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const START: Duration = Duration::from_secs(10);

/// A client's side with the proxy in it, and a service, on the same loopback or at the other end of a cable.
pub(super) struct Place {
    pub(super) service: IpAddr,
    client: Option<Namespace>,
    servers: Vec<Process>,
    _far: Option<Namespace>,
}

impl Place {
    /// One namespace; without root the machine's own.
    pub(super) fn loopback(congestion: Congestion, load: &Path, dir: &Path) -> Result<Place> {
        let is_root = crate::sudo::is_root();
        ensure!(
            is_root || congestion == Congestion::Cubic,
            "{} needs a namespace, and that root",
            congestion.name()
        );
        let client = is_root.then(|| Namespace::new(congestion)).transpose()?;
        let mut place =
            Place { service: Ipv4Addr::LOCALHOST.into(), client, servers: Vec::new(), _far: None };
        let inside = place.enter()?;
        let servers = serve(place.service, load, dir)?;
        drop(inside);
        place.servers = servers;
        Ok(place)
    }

    /// Two namespaces, joined by a cable that goes with them.
    pub(super) fn two_hosts(load: &Path, dir: &Path) -> Result<Place> {
        ensure!(crate::sudo::is_root(), "network namespaces need root, or sudo without a password");
        let congestion = Congestion::Cubic;
        let (near, far) = (Namespace::new(congestion)?, Namespace::new(congestion)?);
        let [a, b] = [&near, &far].map(Namespace::pid);
        succeed(&mut command(&format!("ip link add eth0 netns {a} type veth peer name eth0 netns {b}")))?;
        for (namespace, ip) in [(&near, CLIENT_IP), (&far, &SERVICE_IP.to_string())] {
            let _inside = namespace.enter()?;
            succeed(&mut command(&format!("ip addr add {ip}/24 dev eth0")))?;
            succeed(&mut command("ip link set eth0 up"))?;
            let route = format!("{NETWORK} dev eth0 proto kernel scope link src {ip}");
            succeed(&mut command(&format!("ip route change {route} congctl {}", congestion.name())))?;
        }
        let service = IpAddr::V4(SERVICE_IP);
        let inside = far.enter()?;
        let servers = serve(service, load, dir)?;
        drop(inside);
        Ok(Place { service, client: Some(near), servers, _far: Some(far) })
    }

    /// Until it is dropped, this thread and what it starts are on the client's side.
    pub(super) fn enter(&self) -> Result<Option<Inside>> {
        self.client.as_ref().map(Namespace::enter).transpose()
    }
}

/// The servers, in the namespace that this thread is in.
fn serve(ip: IpAddr, load: &Path, dir: &Path) -> Result<Vec<Process>> {
    let mut echo = tied(load);
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
        let up = eventually(START, || listens(port, Protocol::Tcp) || process.has_ended())?;
        ensure!(up && !process.has_ended(), "the service on port {port} does not start");
        Ok(process)
    };
    servers.into_iter().map(start).collect()
}

fn words(program: &str, words: &str) -> Command {
    let mut command = tied(Path::new(program));
    command.args(words.split_whitespace());
    command
}
