//! `peer://HOST[:PORT]/NAME`, `peer://@IDENTITY/NAME`. Pure.

use super::{at, split_port};
use crate::config::grammar::peer::{export, identity};
use crate::diagnostic::Mistake;
use crate::route::{PEER_PORT, PeerHost, PeerTarget, Target};

/// Parses the part after `peer://`. The name of the export is after the last slash: a SPIFFE ID contains slashes.
pub(super) fn parse(rest: &str) -> Result<PeerTarget, Mistake> {
    let missing = |host: &str| {
        Mistake::new(format!("missing name of the export in `peer://{rest}`"))
            .help(format!("write the name under which the peer offers the service: `peer://{host}/NAME`"))
    };
    if let Some(rest) = rest.strip_prefix('@') {
        let (peer, name) = rest.rsplit_once('/').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err(missing(&format!("@{peer}")));
        }
        return Ok(PeerTarget { host: PeerHost::Identity(identity(peer)?), export: export(name)? });
    }
    let (peer, name) = rest.split_once('/').unwrap_or((rest, ""));
    if name.is_empty() {
        return Err(missing(if peer.is_empty() { "HOST" } else { peer }));
    }
    if let Some(name) = name.strip_suffix("/udp").or(name.strip_suffix("/tcp")) {
        return Err(Mistake::new(format!("unexpected protocol in `peer://{rest}`"))
            .help(format!("write `PORT/udp=peer://{peer}/{name}`: the protocol is that of the listener")));
    }
    Ok(PeerTarget { host: host(peer)?, export: export(name)? })
}

fn host(text: &str) -> Result<PeerHost, Mistake> {
    let (host, port) = split_port(text)?;
    match at(host, port.unwrap_or(PEER_PORT))? {
        Target::Addr(addr) => Ok(PeerHost::Addr(addr)),
        Target::Host { host, port } => Ok(PeerHost::Name { host, port }),
        _ => Err(Mistake::new(format!("invalid host `{text}`")).help("write `peer://HOST/NAME`")),
    }
}

/// A peer that is dialled, and an export of it, if one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAt {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port of its `--peer-listen`.
    pub port: u16,
    /// The name of the export.
    pub export: Option<String>,
}

/// Parses `HOST[:PORT][/NAME]`, with or without `peer://`.
pub(crate) fn peer_at(text: &str) -> Result<PeerAt, Mistake> {
    let rest = text.strip_prefix("peer://").unwrap_or(text);
    if rest.starts_with('@') {
        return Err(Mistake::new(format!("`{text}` dials this host, and cannot be checked from here"))
            .help("check the other direction on that host: `ambassador peer check` with the host of its --peer-dial"));
    }
    let (host, export) = match rest.contains('/') {
        true => parse(rest).map(|PeerTarget { host, export }| (host, Some(export)))?,
        false => (host(rest)?, None),
    };
    let (host, port) = match host {
        PeerHost::Addr(addr) => (addr.ip().to_string(), addr.port()),
        PeerHost::Name { host, port } => (host, port),
        PeerHost::Identity(identity) => (identity, PEER_PORT),
    };
    Ok(PeerAt { host, port, export })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_to_check_is_a_host_with_or_without_a_port_and_an_export() {
        for (text, host, port, export) in [
            ("host1", "host1", 15008, None),
            ("host1:1", "host1", 1, None),
            ("10.0.0.1/redis", "10.0.0.1", 15008, Some("redis")),
            ("peer://[fd00::1]:2/pg", "fd00::1", 2, Some("pg")),
        ] {
            let export = export.map(str::to_owned);
            assert_eq!(peer_at(text), Ok(PeerAt { host: host.to_owned(), port, export }), "{text}");
        }
        for text in ["", "@laptop/redis", "host1/", "host1:0", "a b"] {
            assert!(peer_at(text).unwrap_err().help.is_some(), "{text}");
        }
    }
}
