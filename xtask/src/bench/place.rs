//! Where it is measured: network namespaces of our own, so that neither the machine's firewall nor its busy ports nor
//! its sysctls have a say. The main thread moves in; what it starts is started there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{command, eventually, find, succeed};

/// Ports of the service.
pub(super) const ECHO: u16 = 7001;
pub(super) const REDIS: u16 = 6379;
pub(super) const IPERF: u16 = 5201;

const CLIENT_IP: &str = "10.78.0.1";
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const START: Duration = Duration::from_secs(10);

/// Ports for outgoing connections begin above those that proxies listen on. A port whose last connection is over may
/// be used again at once: a benchmark opens more connections than there are ports.
const HOLDER: &str = "ip link set lo up
echo 16000 65000 >/proc/sys/net/ipv4/ip_local_port_range
echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse
echo ready; read -r end";

/// A client's side with the proxy in it, and a service, on the same loopback or at the other end of a cable.
pub(super) struct Place {
    pub(super) service: IpAddr,
    client: Option<Namespace>,
    servers: Vec<Process>,
    _far: Option<Namespace>,
}

impl Place {
    /// One namespace; without root the machine's own.
    pub(super) fn loopback(load: &Path, dir: &Path) -> Result<Place> {
        let client = crate::sudo::is_root().then(Namespace::new).transpose()?;
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
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        let [a, b] = [&near, &far].map(|namespace| namespace.0.pid());
        succeed(&mut command(&format!("ip link add eth0 netns {a} type veth peer name eth0 netns {b}")))?;
        for (namespace, ip) in [(&near, CLIENT_IP), (&far, &SERVICE_IP.to_string())] {
            let _inside = namespace.enter()?;
            succeed(&mut command(&format!("ip addr add {ip}/24 dev eth0")))?;
            succeed(&mut command("ip link set eth0 up"))?;
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
        let process = Process::start(command.current_dir(dir).stdout(log.try_clone()?).stderr(log))?;
        ensure!(
            eventually(START, || listens(port, Kind::Tcp))?,
            "nobody listens on the service's port {port}"
        );
        Ok(process)
    };
    servers.into_iter().map(start).collect()
}

fn words(program: &str, words: &str) -> Command {
    let mut command = tied(Path::new(program));
    command.args(words.split_whitespace());
    command
}

/// A process that ends when this is dropped, with all of its group.
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Process> {
        Process::spawn(command.stdin(Stdio::null()))
    }

    /// With an input to write to.
    pub(super) fn start_piped(command: &mut Command) -> Result<Process> {
        Process::spawn(command.stdin(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Result<Process> {
        // An interrupt is for us alone.
        let child = command.process_group(0).spawn();
        Ok(Process(child.with_context(|| format!("cannot run {command:?}"))?))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_process_group(Pid::from_child(&self.0), Signal::KILL).ok();
        self.0.wait().ok();
    }
}

/// A program that the kernel kills when we are.
pub(super) fn tied(program: &Path) -> Command {
    let mut command = command("setpriv --pdeathsig KILL");
    command.arg(program);
    command
}

/// What somebody listens on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
}

/// Whether somebody does.
pub(super) fn listens(port: u16, kind: Kind) -> bool {
    listening(kind).contains(&port)
}

/// How many ports from one to the other somebody listens on.
pub(super) fn listening_between(first: u16, last: u16) -> usize {
    listening(Kind::Tcp)
        .into_iter()
        .filter(|port| (first..=last).contains(port))
        .collect::<HashSet<_>>()
        .len()
}

/// All of them, here where this thread is, read off the kernel's tables: a connection to find out would be work for
/// the proxy and a riddle to the service.
fn listening(kind: Kind) -> Vec<u16> {
    let (tables, state) = match kind {
        Kind::Tcp => (["tcp", "tcp6"], "0A"),
        Kind::Udp => (["udp", "udp6"], "07"),
    };
    let text = |table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    tables.into_iter().flat_map(|table| listening_in(&text(table), state)).collect()
}

/// The local ports of the lines in this state.
fn listening_in(table: &str, state: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (_, port) = words.next()?.rsplit_once(':')?;
        (words.nth(1)? == state).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// A network namespace, for as long as this is kept.
struct Namespace(Process);

impl Namespace {
    fn new() -> Result<Namespace> {
        let mut holder = tied(Path::new("unshare"));
        holder.args(["--net", "sh", "-ec", HOLDER]).stdout(Stdio::piped());
        let mut holder = Process::start_piped(&mut holder)?;
        let stdout = holder.0.stdout.take().context("the holder has no output")?;
        let namespace = Namespace(holder);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "no network namespace can be had");
        Ok(namespace)
    }

    fn enter(&self) -> Result<Inside> {
        let home = File::open("/proc/thread-self/ns/net")?;
        let there = File::open(format!("/proc/{}/ns/net", self.0.pid()))?;
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(Inside { home })
    }
}

/// Brings this thread home when it is dropped.
pub(super) struct Inside {
    home: File,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network)) {
            eprintln!("bench: cannot leave the namespace: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::listening_in;

    #[test]
    fn ports_are_those_of_the_lines_that_listen() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
                     0: 0100007F:1B59 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100007F:1B5A 0100007F:C350 01 00000000:00000000\n";
        assert_eq!(listening_in(table, "0A"), [7001]);
    }
}
