//! Two network namespaces with a cable between them that can be cut, without Docker. Needs root.

use std::net::IpAddr;
use std::process::Command;

use super::Namespace;
use super::names::unique;

/// Two hosts; removed when dropped.
pub(crate) struct Cable {
    names: [String; 2],
    pub(crate) hosts: [Namespace; 2],
    pub(crate) ips: [IpAddr; 2],
}

/// No host has this address of the link layer: what is sent to it is lost, without an error for the sender.
const NOWHERE: &str = "02:00:00:00:00:99";

impl Cable {
    /// Creates both hosts, or returns why they cannot be created.
    pub(crate) fn new() -> Result<Cable, String> {
        let names = ["a", "b"].map(|letter| unique(&format!("amb{letter}")));
        for name in &names {
            ip(&format!("netns add {name}"))?;
        }
        let cable = Cable {
            hosts: names.each_ref().map(|name| Namespace::new(format!("/run/netns/{name}"))),
            ips: ["10.79.0.1", "10.79.0.2"].map(|ip| ip.parse().unwrap()),
            names,
        };
        let [a, b] = &cable.names;
        ip(&format!("link add veth netns {a} type veth peer name veth netns {b}"))?;
        for (name, address) in cable.names.iter().zip(cable.ips) {
            ip(&format!("-n {name} address add {address}/24 dev veth"))?;
            ip(&format!("-n {name} link set veth up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(cable)
    }

    /// Loses all packets in both directions from now on.
    pub(crate) fn cut(&self) {
        self.for_both("replace", &format!("lladdr {NOWHERE} nud permanent"));
    }

    pub(crate) fn mend(&self) {
        self.for_both("delete", "");
    }

    fn for_both(&self, verb: &str, rest: &str) {
        let [a, b] = self.ips;
        for (name, other) in self.names.iter().zip([b, a]) {
            ip(&format!("-n {name} neighbour {verb} {other} dev veth {rest}")).unwrap();
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns delete {name}")).ok();
        }
    }
}

fn ip(words: &str) -> Result<(), String> {
    let output =
        Command::new("ip").args(words.split_whitespace()).output().map_err(|error| error.to_string())?;
    let error = || format!("`ip {words}`: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    if output.status.success() { Ok(()) } else { Err(error()) }
}
