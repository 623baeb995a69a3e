//! TARGET: `host[:port]`, `srv://NAME`, `unix:/path`, `file:/path`, and those of `target/`. Pure.

mod consul;
mod docker;
pub(crate) mod etcd;
mod peer;

use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::digits;
use super::listen::{is_path_char, socket_path};
use crate::diagnostic::Mistake;
use crate::route::{Listen, Protocol, Target, TlsHost};
pub(crate) use consul::agent;
pub(crate) use docker::container_name;
pub(crate) use peer::{PeerAt, peer_at};

const FORMS: &str = "targets are `host:port`, `unix:/path`, `docker://NAME[:PORT]`, `srv://NAME`, \
                     `etcd://HOST/PREFIX`, `consul://[HOST:8500/]SERVICE`, `file:/path`, `tls://HOST[:PORT]` and `peer://HOST/NAME`";

/// Schemes that are likely to be written without their slashes.
const SCHEMES: [&str; 6] = ["docker", "srv", "consul", "etcd", "etcds", "tls"];

/// Parses a comma-separated list of targets, without duplicates.
pub(crate) fn parse_list(text: &str, listen: &Listen) -> Result<Vec<Target>, Vec<Mistake>> {
    let mut targets = Vec::new();
    let mut mistakes = Vec::new();
    for word in words(text) {
        match parse(word, listen) {
            Ok(target) if targets.contains(&target) => {}
            Ok(target) => targets.push(target),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(targets) } else { Err(mistakes) }
}

/// Splits at commas, except those within a target.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut left = Some(text);
    std::iter::from_fn(move || {
        let list = left?;
        let end = etcd::word(list).or_else(|| list.find(',')).unwrap_or(list.len());
        let (word, rest) = list.split_at(end);
        left = rest.strip_prefix(',');
        Some(word)
    })
}

fn parse(text: &str, listen: &Listen) -> Result<Target, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new("missing target").help("write `host:port`, or remove the comma"));
    }
    if let Some(keys) = etcd::parse(text) {
        return Ok(Target::Etcd(keys?));
    }
    let target = match text.split_once("://") {
        Some(("docker", rest)) => docker::parse(rest)?,
        Some(("srv", name)) => srv(name)?,
        Some(("consul", rest)) => consul::parse(rest)?,
        Some(("peer", rest)) => {
            refuse_range(text, listen)?;
            Target::Peer(peer::parse(rest)?)
        }
        Some(("tls", rest)) => Target::Tls(tls(inet(rest, listen)?, listen)?),
        _ => match text.split_once(':') {
            Some(("unix", path)) if digits::<u16>(path).is_none() => unix(path, listen)?,
            Some(("file", path)) if digits::<u16>(path).is_none() => file(path)?,
            _ => inet(text, listen)?,
        },
    };
    if let Some(first) = first_port(&target) {
        check_range(first, &target, listen)?;
    }
    Ok(target)
}

fn unix(path: &str, listen: &Listen) -> Result<Target, Mistake> {
    if listen.protocol() == Protocol::Udp {
        return Err(Mistake::new(format!("a UDP listener cannot have the target `unix:{path}`"))
            .help("write `host:port`, or listen on TCP"));
    }
    refuse_range(&format!("unix:{path}"), listen)?;
    Ok(Target::Unix(socket_path(path)?))
}

/// Rejects a target that has no ports to map those of a range to.
fn refuse_range(target: &str, listen: &Listen) -> Result<(), Mistake> {
    if listen.count() == 1 {
        return Ok(());
    }
    Err(Mistake::new(format!("a range of ports cannot have the target `{target}`"))
        .help("listen on a single port"))
}

/// Parses the path of a file of endpoints. Accepts `file:///path`, the form of a URL.
fn file(text: &str) -> Result<Target, Mistake> {
    let path = text.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(text);
    let mistake = |what: &str| Mistake::new(format!("invalid file of endpoints `file:{text}`: {what}"));
    if !path.starts_with('/') || path.starts_with("//") || path.ends_with('/') {
        return Err(mistake("the path is not absolute")
            .help("write the absolute path, as in `file:/etc/ambassador/redis.endpoints`"));
    }
    match path.chars().find(|c| !is_path_char(*c)) {
        Some(odd) => Err(mistake(&format!("it contains {odd:?}")).help("use letters, digits and `/._-+@:~`")),
        None => Ok(Target::File(path.into())),
    }
}

/// Parses a name with SRV records. It need not have the form `_redis._tcp`: the names of Consul and Docker do not.
fn srv(name: &str) -> Result<Target, Mistake> {
    if let Some((name, port)) = name.rsplit_once(':') {
        return Err(Mistake::new(format!("unexpected port in `srv://{name}:{port}`"))
            .help(format!("write `srv://{name}`: the port is in the SRV record")));
    }
    Ok(Target::Srv { name: host_name(name)? })
}

fn inet(text: &str, listen: &Listen) -> Result<Target, Mistake> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let help =
            format!("write `{}` without a scheme; {FORMS}", if rest.is_empty() { "host:port" } else { rest });
        return Err(
            Mistake::new(format!("invalid target `{text}`: `{scheme}://` is not supported")).help(help)
        );
    }
    check_lookalikes(text)?;
    let (host, port) = split_port(text)?;
    let port = match port {
        Some(port) => port,
        None => default_port(text, listen)?,
    };
    at(host, port)
}

/// Rejects common mistakes that would parse as a host: a scheme without its slashes, and a range of ports.
fn check_lookalikes(text: &str) -> Result<(), Mistake> {
    let mistake = |help: String| Err(Mistake::new(format!("invalid target `{text}`")).help(help));
    if let Some(("peer", rest)) = text.split_once(':')
        && digits::<u16>(rest).is_none()
    {
        return mistake("write `peer://HOST/NAME`; `peer:NAME` is a listener".to_owned());
    }
    if let Some((scheme, rest)) = text.split_once(':')
        && SCHEMES.contains(&scheme)
        && rest.contains(|c: char| !c.is_ascii_digit())
    {
        return mistake(format!("write `{scheme}://{}`", rest.trim_start_matches('/')));
    }
    if let Some((host, range)) = text.rsplit_once(':')
        && let Some((first, last)) = range.split_once('-')
        && digits::<u16>(first).is_some()
        && digits::<u16>(last).is_some()
    {
        return mistake(format!("write the range on the left: `{range}={host}:{first}`"));
    }
    Ok(())
}

/// Parses `host:port`, both required, `tls://host:port`, or `peer://HOST/NAME`.
pub(super) fn endpoint(text: &str) -> Result<Target, Mistake> {
    if let Some(rest) = text.strip_prefix("peer://") {
        return peer::parse(rest).map(Target::Peer);
    }
    if let Some(rest) = text.strip_prefix("tls://") {
        return Ok(Target::Tls(tls_host(endpoint(rest)?)?));
    }
    let (host, port) = split_port(text)?;
    let port =
        port.ok_or_else(|| Mistake::new(format!("missing port in `{text}`")).help("write `host:port`"))?;
    at(host, port)
}

/// Returns the target that is reached over TLS.
fn tls(host: Target, listen: &Listen) -> Result<TlsHost, Mistake> {
    if listen.protocol() == Protocol::Udp {
        return Err(Mistake::new(format!("a UDP listener cannot have the target `tls://{host}`"))
            .help("write `host:port`, or listen on TCP"));
    }
    tls_host(host)
}

fn tls_host(host: Target) -> Result<TlsHost, Mistake> {
    match host {
        Target::Addr(addr) => Ok(TlsHost::Addr(addr)),
        Target::Host { host, port } => Ok(TlsHost::Name { host, port }),
        other => Err(Mistake::new(format!("invalid target `tls://{other}`")).help("write `tls://HOST:PORT`")),
    }
}

/// Returns the listener's first port, for a target without a port.
fn default_port(text: &str, listen: &Listen) -> Result<u16, Mistake> {
    listen.first_port().filter(|port| *port != 0).ok_or_else(|| {
        Mistake::new(format!("missing port in `{text}`: the listener has no port to use instead"))
            .help(format!("write `{text}:PORT`"))
    })
}

/// Splits `host:port`, `[v6]:port`, or a host alone. Several colons without brackets are an IPv6 address.
pub(crate) fn split_port(text: &str) -> Result<(&str, Option<u16>), Mistake> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Ok((inner, None));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok((host, Some(port_of(port)?))),
        None => Ok((text, None)),
    }
}

/// Parses a port to connect to.
pub(crate) fn port_of(text: &str) -> Result<u16, Mistake> {
    digits(text)
        .filter(|port: &u16| *port != 0)
        .ok_or_else(|| Mistake::new(format!("invalid port `{text}`")).help("write a number from 1 to 65535"))
}

/// Returns the target of a host, with or without brackets, and a port.
pub(crate) fn at(host: &str, port: u16) -> Result<Target, Mistake> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Target::Addr(SocketAddr::new(ip, port)));
    }
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    // Accepts a numeric zone: `fe80::1%2`.
    if let Ok(addr) = format!("[{inner}]:{port}").parse::<SocketAddrV6>() {
        return Ok(Target::Addr(SocketAddr::V6(addr)));
    }
    Ok(Target::Host { host: host_name(host)?, port })
}

/// Parses a DNS name (RFC 1035, and the underscore, which names of Docker and Compose contain).
pub(super) fn host_name(text: &str) -> Result<String, Mistake> {
    let mistake = |what: &str| Mistake::new(format!("invalid host `{text}`: {what}"));
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(mistake("it is empty").help("write `host:port`"));
    }
    if let Some(odd) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c)) {
        return Err(mistake(&format!("it contains {odd:?}")).help(odd_help(odd)));
    }
    if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err(mistake("each label must have 1 to 63 characters, and the name at most 253")
            .help("check the dots"));
    }
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(mistake("neither an IPv4 address nor a name, which cannot end in a number")
            .help(number_help(text)));
    }
    Ok(text.to_owned())
}

fn odd_help(odd: char) -> String {
    match odd {
        ':' | '[' | ']' | '%' => {
            "write an IPv6 address with a port as `[::1]:80`; a zone must be numeric".to_owned()
        }
        '/' => "write a unix socket as `unix:/path`".to_owned(),
        '\\' => "write `&` and `?` without a backslash where no shell interprets them".to_owned(),
        '=' => "write options after a `?`".to_owned(),
        odd if !odd.is_ascii() => "write an international name in its `xn--` form".to_owned(),
        _ => "use letters, digits and `-_.`".to_owned(),
    }
}

fn number_help(text: &str) -> String {
    match digits::<u16>(text) {
        Some(port) => format!("a target needs a host: write `host:{port}`"),
        None => "write four numbers up to 255 without leading zeros, as in `10.0.0.2`".to_owned(),
    }
}

/// Returns the port of a target; `None` if it is only known with the endpoint.
fn first_port(target: &Target) -> Option<u16> {
    match target {
        Target::Addr(addr) | Target::Tls(TlsHost::Addr(addr)) => Some(addr.port()),
        Target::Host { port, .. } | Target::Tls(TlsHost::Name { port, .. }) => Some(*port),
        Target::Docker { port, .. } | Target::Labelled { port, .. } => *port,
        _ => None,
    }
}

/// Returns an error if the ports of the listener, counted from `first`, would exceed 65535.
pub(super) fn check_range(first: u16, target: &dyn Display, listen: &Listen) -> Result<(), Mistake> {
    if listen.has_counterparts_from(first) {
        return Ok(());
    }
    Err(Mistake::new(format!(
        "invalid port in `{target}`: {} ports from {first} exceed 65535",
        listen.count()
    ))
    .help("use a lower port for the target, or listen on fewer ports"))
}

#[cfg(test)]
mod tests {
    use super::super::listen;
    use super::*;
    use crate::route::{EtcdKeys, PeerHost, PeerTarget};

    fn read(text: &str, listener: &str) -> Result<Vec<Target>, Vec<Mistake>> {
        parse_list(text, &listen::parse(listener).unwrap())
    }

    fn addr(text: &str) -> Target {
        Target::Addr(text.parse().unwrap())
    }

    fn host(host: &str, port: u16) -> Target {
        Target::Host { host: host.to_owned(), port }
    }

    #[test]
    fn every_documented_form_is_read() {
        for (text, expected) in [
            ("redis", host("redis", 6379)),
            ("redis:7000", host("redis", 7000)),
            ("tasks.db_1.example.com.:7000", host("tasks.db_1.example.com.", 7000)),
            ("10.0.0.2", addr("10.0.0.2:6379")),
            ("10.0.0.2:53", addr("10.0.0.2:53")),
            ("[::1]:80", addr("[::1]:80")),
            ("[::1]", addr("[::1]:6379")),
            ("::1", addr("[::1]:6379")),
            ("[fe80::1%2]:80", addr("[fe80::1%2]:80")),
            ("unix:/run/x.sock", Target::Unix("/run/x.sock".into())),
            ("unix:80", host("unix", 80)),
            ("file:80", host("file", 80)),
            ("file:/etc/a.endpoints", Target::File("/etc/a.endpoints".into())),
            ("file:///etc/a.endpoints", Target::File("/etc/a.endpoints".into())),
            ("srv://_redis._tcp.example.com", Target::Srv { name: "_redis._tcp.example.com".to_owned() }),
            ("srv:80", host("srv", 80)),
            ("etcd://h:2379/services/redis", etcd(false, &["h:2379"], "/services/redis")),
            ("etcd://h/p/", etcd(false, &["h:2379"], "/p")),
            (
                "etcds://h1,10.0.0.2:4001,[::1],h1/p:80",
                etcd(true, &["h1:2379", "10.0.0.2:4001", "[::1]:2379"], "/p:80"),
            ),
        ] {
            assert_eq!(read(text, "6379"), Ok(vec![expected]), "{text}");
        }
    }

    fn etcd(tls: bool, members: &[&str], prefix: &str) -> Target {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        Target::Etcd(EtcdKeys { tls, members, prefix: prefix.to_owned() })
    }

    #[test]
    fn commas_between_members_of_etcd_do_not_separate_targets() {
        let both = etcd(false, &["a:2379", "b:1"], "/p");
        assert_eq!(read("x,etcd://a,b:1/p,y", "80"), Ok(vec![host("x", 80), both.clone(), host("y", 80)]));
        assert_eq!(read("etcd://a,b:1/p,etcd://a,b:1/p/", "80"), Ok(vec![both]));
    }

    #[test]
    fn a_password_in_a_target_is_an_error_and_is_not_printed() {
        let mistakes = read("etcd://root:secret@h/p", "80").unwrap_err();
        assert!(mistakes[0].help.as_deref().unwrap().contains("AMBASSADOR_ETCD_PASSWORD"), "{mistakes:?}");
        assert!(!format!("{mistakes:?}").contains("secret"));
    }

    #[test]
    fn the_same_target_twice_is_one() {
        assert_eq!(read("a,b:6379,a:6379", "6379"), Ok(vec![host("a", 6379), host("b", 6379)]));
    }

    #[test]
    fn peer_is_an_address_a_name_or_an_identity() {
        let name = |host: &str, port| PeerHost::Name { host: host.to_owned(), port };
        let identity = |text: &str| PeerHost::Identity(text.to_owned());
        for (text, host, export) in [
            ("peer://host1/redis", name("host1", 15008), "redis"),
            ("peer://host1:15009/redis:6379", name("host1", 15009), "redis:6379"),
            ("peer://10.0.0.2/redis", PeerHost::Addr("10.0.0.2:15008".parse().unwrap()), "redis"),
            ("peer://[fd00::2]/redis", PeerHost::Addr("[fd00::2]:15008".parse().unwrap()), "redis"),
            ("peer://fd00::2/redis", PeerHost::Addr("[fd00::2]:15008".parse().unwrap()), "redis"),
            ("peer://[fe80::1%2]:80/redis", PeerHost::Addr("[fe80::1%2]:80".parse().unwrap()), "redis"),
            ("peer://@laptop/redis", identity("laptop"), "redis"),
            ("peer://@spiffe://td/ns/a/redis", identity("spiffe://td/ns/a"), "redis"),
        ] {
            let target = Target::Peer(PeerTarget { host, export: export.to_owned() });
            for listener in ["6379", "53/udp", "/run/x.sock", "peer:redis"] {
                assert_eq!(read(text, listener), Ok(vec![target.clone()]), "{text}");
            }
            assert_eq!(read(&target.to_string(), "80"), Ok(vec![target]), "{text}");
        }
    }

    #[test]
    fn every_other_form_is_an_error_with_a_help() {
        for (text, listener, help) in [
            ("", "80", "host:port"),
            ("a,,b", "80", "remove the comma"),
            ("8080", "80", "write `host:8080`"),
            ("10.0.0.300", "80", "four numbers"),
            ("redis:0", "80", "from 1 to 65535"),
            ("redis:99999", "80", "from 1 to 65535"),
            ("redis:http", "80", "from 1 to 65535"),
            ("tcp://redis:6379", "80", "write `redis:6379` without"),
            ("r\u{e9}dis", "80", "xn--"),
            ("fe80::1%eth0:80", "80", "a zone must be numeric"),
            ("/run/x.sock", "80", "unix:/path"),
            ("unix:x.sock", "80", "begin the path"),
            ("unix:/x", "53/udp", "listen on TCP"),
            ("unix:/x", "80-81", "a single port"),
            ("peer://host/redis", "80-81", "a single port"),
            ("peer://host", "80", "`peer://host/NAME`"),
            ("peer://host/", "80", "`peer://host/NAME`"),
            ("peer://", "80", "`peer://HOST/NAME`"),
            ("peer:///redis", "80", "host:port"),
            ("peer://host:0/redis", "80", "from 1 to 65535"),
            ("peer://host/redis/udp", "80", "`PORT/udp=peer://host/redis`"),
            ("peer://host/a/b", "80", "letters, digits"),
            ("peer://@laptop", "80", "`peer://@laptop/NAME`"),
            ("peer://@/redis", "80", "write a name"),
            ("peer://@spiffe://td/redis", "80", "TRUST-DOMAIN/PATH"),
            ("peer:redis", "80", "`peer://HOST/NAME`"),
            ("redis", "peer:redis", "write `redis:PORT`"),
            ("unix:/x", "peer:dns/udp", "listen on TCP"),
            ("docker:postgres", "80", "write `docker://postgres`"),
            ("docker:postgres:5432", "80", "write `docker://postgres:5432`"),
            ("docker:/postgres", "80", "write `docker://postgres`"),
            ("srv:_a._tcp.b", "80", "write `srv://_a._tcp.b`"),
            ("consul:redis", "80", "write `consul://redis`"),
            ("redis:9000-9010", "80", "`9000-9010=redis:9000`"),
            ("[::1]:9000-9010", "80", "`9000-9010=[::1]:9000`"),
            ("redis", "0", "write `redis:PORT`"),
            ("redis", "/run/x.sock", "write `redis:PORT`"),
            ("redis:65000", "8000-9000", "lower"),
            ("srv://_a._tcp.b:80", "80", "in the SRV record"),
            ("srv://", "80", "host:port"),
            ("etcd://h", "80", "services/redis"),
            ("etcd://h:2379/", "80", "services/redis"),
            ("etcd:///p", "80", "host:port"),
            ("etcd://h,/p", "80", "host:port"),
            ("etcd://h:0/p", "80", "from 1 to 65535"),
            ("etcd://h/a*b", "80", "letters, digits"),
            ("file:", "80", "the absolute path"),
            ("file:a.endpoints", "80", "the absolute path"),
            ("file://a/b", "80", "the absolute path"),
            ("file:/a/", "80", "the absolute path"),
            ("file:/a b", "80", "letters, digits"),
        ] {
            let mistakes = read(text, listener).expect_err(text);
            assert!(mistakes[0].help.as_deref().unwrap_or("").contains(help), "{text}: {mistakes:?}");
        }
    }

    #[test]
    fn a_range_may_end_exactly_at_the_last_port() {
        assert!(read("redis:65534", "1-2").is_ok());
        assert!(read("redis:65535", "1-2").is_err());
    }

    #[test]
    fn every_invalid_target_of_a_list_is_reported() {
        assert_eq!(read("a:0,b,c:0", "80").unwrap_err().len(), 2);
    }
}
