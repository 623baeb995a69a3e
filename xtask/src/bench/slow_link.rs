//! A link between two namespaces with a delay, in user space: not every kernel has `netem`.
//!
//! socat carries the packets of a TUN device on each side over Unix datagram sockets to the load program, which delays
//! them. The MTU is that of a loopback, so that the work for each packet does not limit the throughput.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::child::{Process, killed_with_parent};
use super::namespace::Namespace;
use crate::process::{command, succeed, wait_until};

const START: Duration = Duration::from_secs(10);
const MTU: u32 = 65_000;
/// Packets that wait for socat: so many that none is lost while socat waits for a processor.
const QUEUE: u32 = 10_000;

/// Connects two namespaces by a device named `eth0` in each; the link is removed with the processes.
pub(super) fn start(
    round_trip_ms: u32,
    [near, far]: [&Namespace; 2],
    load: &Path,
    dir: &Path,
) -> Result<Vec<Process>> {
    let dir = dir.join(format!("link-{round_trip_ms}ms"));
    std::fs::create_dir_all(&dir)?;
    let mut delay = killed_with_parent(load);
    delay.args(["bench-load", "delay", "--microseconds", &(round_trip_ms * 500).to_string()]).arg(&dir);
    let mut processes = vec![Process::start(&mut delay)?];
    let bound = |name: &str| wait_until(START, || dir.join(name).exists());
    ensure!(bound("to-far")? && bound("to-near")?, "the link did not start");
    for (namespace, to, from) in [(near, "to-far", "from-far"), (far, "to-near", "from-near")] {
        let _inside = namespace.enter()?;
        let mut socat = killed_with_parent(Path::new("socat"));
        socat.args(["-b", &(MTU + 100).to_string(), "TUN,tun-name=eth0,iff-no-pi,iff-up"]);
        socat.arg(format!("UNIX-SENDTO:{to},bind={from}")).current_dir(&dir);
        processes.push(Process::start(&mut socat)?);
        ensure!(bound(from)?, "socat did not start");
        succeed(&mut command(&format!("ip link set eth0 mtu {MTU} txqueuelen {QUEUE}")))?;
    }
    Ok(processes)
}
