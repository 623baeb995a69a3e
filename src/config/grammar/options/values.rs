//! The values of options: one parser for each kind. Pure.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::config::grammar::listen::is_path_char;
use crate::config::grammar::{digits, peer};
use crate::config::suggest::suggest;
use crate::diagnostic::Mistake;
use crate::route::{Check, Listen, Protocol, ProxySender, ProxyTlv, ProxyVersion};

/// A name is part of URLs, metrics and log lines. Every listener is a valid name; the longest is `peer:NAME/udp`.
const NAME_LENGTH_MAX: usize = 262;

/// Prevents the overflow of sums of durations.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Checks more frequent than this would be a load of their own.
const CHECK_DURATION_MIN: Duration = Duration::from_millis(10);

/// The maximum number of consecutive checks.
const CHECKS_MAX: u32 = 1000;

/// Parses the name of a route.
pub(super) fn name(text: &str) -> Result<String, Mistake> {
    let mistake = |what: &str| Mistake::new(format!("invalid name `{text}`: {what}"));
    if text.is_empty() {
        return Err(mistake("it is empty").help("write `name=redis`"));
    }
    if text.len() > NAME_LENGTH_MAX {
        return Err(mistake(&format!("longer than {NAME_LENGTH_MAX} characters")).help("shorten it"));
    }
    match text.chars().find(|c| !is_name_char(*c)) {
        Some(odd) => {
            Err(mistake(&format!("it contains {odd:?}")).help("use letters, digits and `._-/:[]@+~*`"))
        }
        None => Ok(text.to_owned()),
    }
}

/// The characters of a path and of an IPv6 listener.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-/:[]@+~*".contains(c)
}

/// Parses one of the values of an enum by its name.
pub(crate) fn one_of<T: Copy, const N: usize>(
    key: &str,
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, Mistake> {
    all.into_iter().find(|value| name(*value) == text).ok_or_else(|| {
        Mistake::new(format!("invalid value `{text}` for `{key}`")).help(suggest(text, &all.map(name)))
    })
}

/// Parses a duration; `off` is zero.
pub(crate) fn duration_or_off(text: &str) -> Result<Duration, Mistake> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text) }
}

/// Parses a limit; `off` and `0` are `None`.
pub(super) fn optional_duration(text: &str) -> Result<Option<Duration>, Mistake> {
    Ok(Some(duration_or_off(text)?).filter(|duration| !duration.is_zero()))
}

pub(super) fn connect_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" || duration(text)?.is_zero() {
        return Err(Mistake::new(format!(
            "invalid value `{text}` for `connect-timeout`: it must be positive and finite"
        ))
        .help("write a duration such as `3s`"));
    }
    duration(text)
}

pub(super) fn half_close_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return Err(Mistake::new(
            "`half-close-timeout` cannot be `off`: an idle half-closed session would never end",
        )
        .help("write a long duration such as `24h`"));
    }
    duration(text)
}

/// Parses a positive number; `off` is `None`.
pub(super) fn limit(of: &str, text: &str) -> Result<Option<u32>, Mistake> {
    if text == "off" {
        return Ok(None);
    }
    let number = digits(text).filter(|number: &u32| *number > 0);
    number.map(Some).ok_or_else(|| {
        Mistake::new(format!("invalid number of {of} `{text}`"))
            .help("write a whole number from 1 to 4294967295, or `off`")
    })
}

pub(super) fn check(text: &str) -> Result<Check, Mistake> {
    match text {
        "off" => Ok(Check::Off),
        "tcp" => Ok(Check::Tcp),
        "redis" => Ok(Check::Redis),
        "postgres" => Ok(Check::Postgres),
        _ => match text.strip_prefix("http:") {
            Some(path) => http_path(path),
            None if text == "http" => http_path(""),
            None => Err(Mistake::new(format!("invalid value `{text}` for `health`"))
                .help(suggest(text, &["off", "tcp", "redis", "postgres", "http:/path"]))),
        },
    }
}

/// Parses a path that is valid in a request line and in a route.
fn http_path(path: &str) -> Result<Check, Mistake> {
    let fits = |c: char| c.is_ascii_graphic() && !"&#\"<>\\^`{|}".contains(c);
    if path.starts_with('/') && !path.starts_with("//") && path.chars().all(fits) {
        return Ok(Check::Http(path.to_owned()));
    }
    let mistake = Mistake::new(format!("invalid path of a health check `{}`", path.escape_debug()));
    Err(mistake.help("write a path without a host, a space or an `&`, as in `health=http:/healthz`"))
}

/// Parses the interval or the timeout of a check.
pub(super) fn check_duration(key: &str, text: &str) -> Result<Duration, Mistake> {
    let wrong = |what: &str| {
        let mistake = Mistake::new(format!("invalid value `{text}` for `{key}`: {what}"));
        mistake.help("write a duration such as `5s`, or `health=off`")
    };
    match text {
        "off" => Err(wrong("it cannot be off")),
        _ if duration(text)? < CHECK_DURATION_MIN => Err(wrong("less than 10 ms")),
        _ => duration(text),
    }
}

/// Parses a number of consecutive checks.
pub(super) fn checks(text: &str) -> Result<u32, Mistake> {
    digits(text).filter(|count| (1..=CHECKS_MAX).contains(count)).ok_or_else(|| {
        Mistake::new(format!("invalid number of checks `{text}`"))
            .help(format!("write a whole number from 1 to {CHECKS_MAX}"))
    })
}

pub(super) fn networks(key: &str, text: &str, listen: &Listen) -> Result<Vec<IpNet>, Vec<Mistake>> {
    if matches!(listen, Listen::Unix(_)) {
        return Err(Mistake::new(format!(
            "`{key}` is not supported on a unix socket, whose clients have no address"
        ))
        .help("restrict the permissions of the socket's directory")
        .into());
    }
    each(text, network)
}

/// Parses the identities of the peers that may use a route.
pub(super) fn peers(text: &str, listen: &Listen) -> Result<Vec<String>, Vec<Mistake>> {
    if !matches!(listen, Listen::Peer { .. }) {
        return Err(Mistake::new("`peers` is only supported on a listener `peer:NAME`")
            .help("remove it, or restrict clients by address: `allow=10.0.0.0/8`")
            .into());
    }
    identities(text)
}

/// Parses identities, separated by commas.
pub(super) fn identities(text: &str) -> Result<Vec<String>, Vec<Mistake>> {
    each(text, peer::identity)
}

/// Parses the clients that send a PROXY protocol header.
pub(super) fn proxy_senders(
    key: &str,
    text: &str,
    listen: &Listen,
) -> Result<Vec<ProxySender>, Vec<Mistake>> {
    each(text, |word| match (listen, word) {
        (Listen::Unix(_), "unix") => Ok(ProxySender::Unix),
        (Listen::Unix(_), _) => Err(Mistake::new(format!(
            "invalid value `{word}` for `{key}` on a unix socket, whose clients have no address"
        ))
        .help(format!("write `{key}=unix`: every client of the socket sends a header"))),
        _ => network(word).map(ProxySender::Net),
    })
}

/// Parses the version of the PROXY protocol header that is sent.
pub(super) fn proxy_version(key: &str, text: &str, listen: &Listen) -> Result<ProxyVersion, Mistake> {
    let version = one_of(key, text, ProxyVersion::ALL, ProxyVersion::name)?;
    if version == ProxyVersion::V1 && listen.protocol() == Protocol::Udp {
        return Err(Mistake::new(format!("`{key}=v1` is not supported on the UDP listener `{listen}`"))
            .help(format!("write `{key}=v2`: version 1 has no header for UDP")));
    }
    Ok(version)
}

/// Parses the fields of a PROXY protocol header.
pub(super) fn proxy_tlv(key: &str, text: &str) -> Result<Vec<ProxyTlv>, Vec<Mistake>> {
    each(text, |word| one_of(key, word, ProxyTlv::ALL, ProxyTlv::name))
}

/// Returns a mistake for an option that concerns connections of clients, which UDP and tunnels do not have.
pub(super) fn of_connections(key: &str, listen: &Listen) -> Result<(), Mistake> {
    if listen.protocol() == Protocol::Tcp && !matches!(listen, Listen::Peer { .. }) {
        return Ok(());
    }
    Err(Mistake::new(format!("`{key}` is not supported on the listener `{listen}`"))
        .help("remove it: only connections over TCP and unix sockets have it"))
}

/// Parses the name of a certificate of the configuration.
pub(in crate::config) fn certificate(text: &str) -> Result<String, Mistake> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(format!("invalid name of a certificate `{text}`"))
        .help("use letters, digits and `._-`: it is the `name` of a `[[certificate]]`"))
}

/// Parses the path of a file.
pub(super) fn file(key: &str, text: &str) -> Result<PathBuf, Mistake> {
    let mistake = |what: &str| Mistake::new(format!("invalid path `{text}` for `{key}`: {what}"));
    if !text.starts_with('/') || text.starts_with("//") || text.ends_with('/') {
        return Err(mistake("it is not the absolute path of a file")
            .help(format!("write `{key}=/etc/ambassador/ca.pem`")));
    }
    match text.chars().find(|c| !is_path_char(*c)) {
        Some(odd) => Err(mistake(&format!("it contains {odd:?}")).help("use letters, digits and `/._-+@:~`")),
        None => Ok(PathBuf::from(text)),
    }
}

/// Parses a list, separated by commas. Returns every mistake.
fn each<T>(text: &str, parse: impl Fn(&str) -> Result<T, Mistake>) -> Result<Vec<T>, Vec<Mistake>> {
    let (values, mistakes): (Vec<_>, Vec<_>) = text.split(',').map(parse).partition(Result::is_ok);
    if mistakes.is_empty() {
        return Ok(values.into_iter().filter_map(Result::ok).collect());
    }
    Err(mistakes.into_iter().filter_map(Result::err).collect())
}

fn network(text: &str) -> Result<IpNet, Mistake> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| single()).map_err(|_| {
        Mistake::new(format!("invalid network `{text}`"))
            .help("write an address or a network such as `10.0.0.0/8` or `fd00::/8`")
    })?;
    canonical(network).ok_or_else(|| {
        Mistake::new(format!("invalid network `{text}`: it contains IPv4-mapped and other IPv6 addresses"))
            .help("write the IPv4 network, such as `10.0.0.0/8`, or `::/0` for every IPv6 address")
    })
}

/// Converts a network of IPv4-mapped addresses (RFC 4291, 2.5.5.2) to the IPv4 network, since IPv4 clients are identified by
/// their IPv4 address. Returns `None` if it contains other addresses as well.
fn canonical(network: IpNet) -> Option<IpNet> {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(v6) = network else { return Some(network) };
    let Some(addr) = v6.addr().to_ipv4_mapped() else { return Some(network) };
    let prefix = v6.prefix_len().checked_sub(MAPPED_PREFIX)?;
    Ipv4Net::new(addr, prefix).ok().map(IpNet::V4)
}

/// Parses a duration such as `10s`, `500ms`, `1h30m` or `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, Mistake> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(
            Mistake::new(format!("missing unit in `{text}`")).help(format!("write `{text}s` for seconds"))
        );
    }
    let duration = humantime::parse_duration(text).map_err(|_| {
        Mistake::new(format!("invalid duration `{text}`"))
            .help("write a duration such as `10s`, `500ms`, `5m` or `1h30m`")
    })?;
    if duration > DURATION_MAX {
        return Err(Mistake::new(format!("invalid duration `{text}`: longer than a year"))
            .help("write `365days` or less"));
    }
    Ok(duration)
}
