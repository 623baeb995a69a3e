//! The hosts file, hosts(5): what it says of a name goes before what DNS says. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that the file gives a name, sorted. Lines that cannot be read are passed over.
pub(super) fn addresses(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut found: BTreeSet<IpAddr> = text.lines().filter_map(|line| address(line, host)).collect();
    // RFC 6761, 6.3: never asked of a server. An image FROM scratch has no hosts file but Docker's own.
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
    fn every_line_that_names_the_host_counts() {
        check("testapp_fpm_1", &["172.17.0.5", "fd00::5"]);
        check("2bae5bf71e09", &["172.17.0.5"]);
        check("db.EXAMPLE.", &["172.17.0.9"]);
        check("localhost", &["127.0.0.1", "::1"]);
    }

    #[test]
    fn comments_and_what_cannot_be_read_do_not() {
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
        fn whatever_the_file_says_is_read(
            text in "([0-9.:a-f%#]{0,9}[ \\t\\n]redis|\\PC){0,20}",
            host in "redis|\\PC*",
        ) {
            addresses(&text, &host);
        }
    }
}
