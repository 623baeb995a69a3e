//! A network namespace of our own. What holds it is a process that ends with us; the namespace, and the cables that end
//! in it, end with that.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::child::{Process, tied};

/// Ports for outgoing connections begin above those that proxies listen on. A port whose last connection is over may
/// be used again at once: a benchmark opens more connections than there are ports. `$0` is the congestion control; as
/// a property of the route it needs no permission of the machine's namespace, which `tcp_congestion_control` does.
const HOLDER: &str = "ip link set lo up
for to in 127.0.0.0/8 127.0.0.1; do
    ip route change local $to dev lo table local proto kernel scope host src 127.0.0.1 congctl $0
done
echo 16000 65000 >/proc/sys/net/ipv4/ip_local_port_range
echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse
echo ready; read -r end";

/// How TCP paces itself, which bulk depends on more than on anything else here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Congestion {
    /// Linux's default.
    Cubic,
    /// That of many servers on the Internet. It spreads what it sends over time, even on a loopback.
    Bbr,
}

impl Congestion {
    /// As the kernel calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Congestion::Cubic => "cubic",
            Congestion::Bbr => "bbr",
        }
    }
}

/// A network namespace, for as long as this is kept.
pub(super) struct Namespace(Process);

impl Namespace {
    /// Of the process that holds it.
    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub(super) fn new(congestion: Congestion) -> Result<Namespace> {
        let mut holder = tied(Path::new("unshare"));
        holder.args(["--net", "sh", "-ec", HOLDER, congestion.name()]).stdout(Stdio::piped());
        let mut holder = Process::start_piped(&mut holder)?;
        let stdout = holder.0.stdout.take().context("the holder has no output")?;
        let namespace = Namespace(holder);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "no network namespace with {} can be had", congestion.name());
        Ok(namespace)
    }

    pub(super) fn enter(&self) -> Result<Inside> {
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
