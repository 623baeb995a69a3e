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
