//! A private network namespace. A child process keeps it alive; the kernel removes the namespace and its veth pairs
//! when that process ends.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::child::{Process, killed_with_parent};

/// Ephemeral ports start above the ports of proxies. A port may be reused as soon as its last connection is closed,
/// because a benchmark opens more connections than there are ports. `$0` is the congestion control: as a property of
/// the route it needs no permission of the machine's namespace, unlike `tcp_congestion_control`.
const HOLDER: &str = "ip link set lo up
for to in 127.0.0.0/8 127.0.0.1; do
    ip route change local $to dev lo table local proto kernel scope host src 127.0.0.1 congctl $0
done
echo 16000 65000 >/proc/sys/net/ipv4/ip_local_port_range
echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse
echo ready; read -r end";

/// The congestion control of TCP, which determines bulk throughput more than anything else here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Congestion {
    /// The default of Linux.
    Cubic,
    /// Common on servers on the Internet. It spreads what it sends over time, even on a loopback.
    Bbr,
}

impl Congestion {
    /// Returns the kernel's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Congestion::Cubic => "cubic",
            Congestion::Bbr => "bbr",
        }
    }
}

/// A network namespace; it is removed when this value is dropped.
pub(super) struct Namespace(Process);

impl Namespace {
    /// Returns the pid of the process that keeps the namespace alive.
    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub(super) fn new(congestion: Congestion) -> Result<Namespace> {
        let mut holder = killed_with_parent(Path::new("unshare"));
        holder.args(["--net", "sh", "-ec", HOLDER, congestion.name()]).stdout(Stdio::piped());
        let mut holder = Process::start_piped(&mut holder)?;
        let stdout = holder.0.stdout.take().context("the holder has no standard output")?;
        let namespace = Namespace(holder);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "cannot create a network namespace with {}", congestion.name());
        Ok(namespace)
    }

    pub(super) fn enter(&self) -> Result<NamespaceGuard> {
        let previous = File::open("/proc/thread-self/ns/net")?;
        let there = File::open(format!("/proc/{}/ns/net", self.0.pid()))?;
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(NamespaceGuard { previous })
    }
}

/// Moves this thread back to its previous namespace when it is dropped.
pub(super) struct NamespaceGuard {
    previous: File,
}

impl Drop for NamespaceGuard {
    fn drop(&mut self) {
        if let Err(error) = move_into_link_name_space(self.previous.as_fd(), Some(LinkNameSpaceType::Network))
        {
            eprintln!("bench: cannot leave the namespace: {error}");
        }
    }
}
