//! Who listens here, read off the kernel's tables: a connection to find out would be work for the proxy and a riddle to
//! the service.

use std::collections::HashSet;
use std::fs;

/// What somebody listens on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// Whether somebody does.
pub(super) fn listens(port: u16, protocol: Protocol) -> bool {
    listening(protocol).contains(&port)
}

/// How many ports from one to the other somebody listens on.
pub(super) fn listening_between(first: u16, last: u16) -> usize {
    listening(Protocol::Tcp)
        .into_iter()
        .filter(|port| (first..=last).contains(port))
        .collect::<HashSet<_>>()
        .len()
}

/// All ports, in the namespace that this thread is in.
fn listening(protocol: Protocol) -> Vec<u16> {
    let (tables, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], "0A"),
        Protocol::Udp => (["udp", "udp6"], "07"),
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
