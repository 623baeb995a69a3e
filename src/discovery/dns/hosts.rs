//! The hosts file, hosts(5), which precedes DNS. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ordered::CollectOrdered;

/// Returns the addresses of a name in the file, sorted. Invalid lines are ignored.
pub(super) fn addresses(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut found: BTreeSet<IpAddr> = text.lines().filter_map(|line| address(line, host)).collect_ordered();
    // RFC 6761, 6.3: never sent to a server. An image FROM scratch has no hosts file but that of Docker.
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        found.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    }
    found.into_iter().collect()
}

fn address(line: &str, host: &str) -> Option<IpAddr> {
    let line = line.split('#').next()?;
    let mut words = line.split_ascii_whitespace();
    let ip = words.next()?;
    words.any(|name| name.eq_ignore_ascii_case(host)).then(|| ip.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
        172.17.0.5\ttestapp_fpm_1 2bae5bf71e09 # a comment with db in it\n\
        fd00::5 testapp_fpm_1\nnonsense db\n172.17.0.9 DB.example\n\n#172.17.0.8 db\n";

    fn check(host: &str, expected: &[&str]) {
        let found: Vec<String> = addresses(DOCKERS, host).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{host}");
    }

    #[test]
    fn every_line_with_the_host_is_used() {
        check("testapp_fpm_1", &["172.17.0.5", "fd00::5"]);
        check("2bae5bf71e09", &["172.17.0.5"]);
        check("db.EXAMPLE.", &["172.17.0.9"]);
        check("localhost", &["127.0.0.1", "::1"]);
    }

    #[test]
    fn comments_and_invalid_lines_are_ignored() {
        check("db", &[]);
        check("", &[]);
        check("172.17.0.5", &[]);
    }

    #[test]
    fn localhost_needs_no_file() {
        assert_eq!(addresses("", "localhost").len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_accepted(
            text in "([0-9.:a-f%#]{0,9}[ \\t\\n]redis|\\PC){0,20}",
            host in "redis|\\PC*",
        ) {
            addresses(&text, &host);
        }
    }
}
