//! Ports that are listened on, from the kernel's tables: a test connection would be work for the proxy and its service.

use std::collections::HashSet;
use std::fs;

/// A transport protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// Returns whether a socket listens on this port.
pub(super) fn listens(port: u16, protocol: Protocol) -> bool {
    listening(protocol).contains(&port)
}

/// Returns how many ports of the range are listened on.
pub(super) fn listening_between(first: u16, last: u16) -> usize {
    listening(Protocol::Tcp)
        .into_iter()
        .filter(|port| (first..=last).contains(port))
        .collect::<HashSet<_>>()
        .len()
}

/// Returns all ports in the network namespace of this thread.
fn listening(protocol: Protocol) -> Vec<u16> {
    let (tables, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], "0A"),
        Protocol::Udp => (["udp", "udp6"], "07"),
    };
    let text = |table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    tables.into_iter().flat_map(|table| listening_in(&text(table), state)).collect()
}

/// Returns the local ports of the lines in this state.
fn listening_in(table: &str, state: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (_, port) = words.next()?.rsplit_once(':')?;
        (words.nth(1)? == state).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::listening_in;

    #[test]
    fn ports_are_taken_from_listening_lines() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
                     0: 0100007F:1B59 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100007F:1B5A 0100007F:C350 01 00000000:00000000\n";
        assert_eq!(listening_in(table, "0A"), [7001]);
    }
}
