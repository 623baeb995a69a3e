//! The values of options: one reader for each kind. Pure.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::config::suggest::suggest;
use crate::diagnostic::Mistake;
use crate::route::{Check, Listen};

/// A name is a word of a URL's path, of a metric and of a log line. Every listener's text can be one.
const NAME_LENGTH_MAX: usize = 128;

/// Longer than any connection is worth waiting for; keeps sums of durations far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// More often than this, checks are a load of their own.
const PACE_MIN: Duration = Duration::from_millis(10);

/// In a row: more would take longer than anybody waits.
const CHECKS_MAX: u32 = 1000;

pub(super) fn name(text: &str) -> Result<String, Mistake> {
    let mistake = |what: &str| Mistake::new(format!("`{text}` cannot be a name: {what}"));
    if text.is_empty() {
        return Err(mistake("it is empty").help("write `name=redis`"));
    }
    if text.len() > NAME_LENGTH_MAX {
        return Err(mistake(&format!("it has more than {NAME_LENGTH_MAX} characters")).help("shorten it"));
    }
    match text.chars().find(|c| !is_name_char(*c)) {
        Some(odd) => Err(mistake(&format!("it holds {odd:?}")).help("use letters, digits and `._-/:[]@+~`")),
        None => Ok(text.to_owned()),
    }
}

/// A path's characters and those of an IPv6 listener.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-/:[]@+~".contains(c)
}

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

/// `off` says what `0` does.
pub(crate) fn duration_or_off(text: &str) -> Result<Duration, Mistake> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text) }
}

/// `off` and `0` are no limit.
pub(super) fn some_duration(text: &str) -> Result<Option<Duration>, Mistake> {
    Ok(Some(duration_or_off(text)?).filter(|limit| !limit.is_zero()))
}

pub(super) fn connect_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" || duration(text)?.is_zero() {
        return Err(Mistake::new(format!("`connect-timeout={text}` would never connect or never give up"))
            .help("write a duration such as `3s`"));
    }
    duration(text)
}

pub(super) fn half_close_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return Err(Mistake::new("`half-close-timeout` cannot be off: a silent half would stay for ever")
            .help("write a long duration such as `24h`"));
    }
    duration(text)
}

/// `off` is no limit.
pub(super) fn some_number(of: &str, text: &str) -> Result<Option<u32>, Mistake> {
    if text == "off" {
        return Ok(None);
    }
    let number = digits(text).filter(|number: &u32| *number > 0);
    number.map(Some).ok_or_else(|| {
        Mistake::new(format!("`{text}` is no number of {of}"))
            .help("write a whole number from 1 to 4294967295, or `off`")
    })
}

/// Parses an integer without a sign, which `parse` would accept.
pub(crate) fn digits<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
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

/// What can stand in a request's first line and in a route's.
fn http_path(path: &str) -> Result<Check, Mistake> {
    let fits = |c: char| c.is_ascii_graphic() && !"&#\"<>\\^`{|}".contains(c);
    if path.starts_with('/') && !path.starts_with("//") && path.chars().all(fits) {
        return Ok(Check::Http(path.to_owned()));
    }
    let mistake = Mistake::new(format!("`{}` is no path to ask for", path.escape_debug()));
    Err(mistake.help("write for instance `health=http:/healthz`, without a host, a space or an `&`"))
}

/// How often, or how long, a check is.
pub(super) fn pace(key: &str, text: &str) -> Result<Duration, Mistake> {
    let wrong = |what: &str| {
        Mistake::new(format!("`{key}={text}` {what}")).help("write a duration such as `5s`, or `health=off`")
    };
    match text {
        "off" => Err(wrong("would never check")),
        _ if duration(text)? < PACE_MIN => Err(wrong("is below 10 ms")),
        _ => duration(text),
    }
}

/// Checks in a row.
pub(super) fn checks(text: &str) -> Result<u32, Mistake> {
    digits(text).filter(|count| (1..=CHECKS_MAX).contains(count)).ok_or_else(|| {
        Mistake::new(format!("`{text}` is no number of checks"))
            .help(format!("write a whole number from 1 to {CHECKS_MAX}"))
    })
}

pub(super) fn networks(key: &str, text: &str, listen: &Listen) -> Result<Vec<IpNet>, Vec<Mistake>> {
    if matches!(listen, Listen::Unix(_)) {
        return Err(Mistake::new(format!(
            "`{key}` has no meaning for a unix socket, whose clients have no address"
        ))
        .help("set the permissions of the socket's directory")
        .into());
    }
    let (networks, mistakes): (Vec<_>, Vec<_>) = text.split(',').map(network).partition(Result::is_ok);
    if mistakes.is_empty() {
        return Ok(networks.into_iter().filter_map(Result::ok).collect());
    }
    Err(mistakes.into_iter().filter_map(Result::err).collect())
}

fn network(text: &str) -> Result<IpNet, Mistake> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| single()).map_err(|_| {
        Mistake::new(format!("`{text}` is no network"))
            .help("write an address or a network such as `10.0.0.0/8` or `fd00::/8`")
    })?;
    canonical(network).ok_or_else(|| {
        Mistake::new(format!("`{text}` is neither a network of IPv4 addresses nor one of IPv6 addresses"))
            .help("write the IPv4 network, such as `10.0.0.0/8`, or `::/0` for every IPv6 address")
    })
}

/// IPv4 clients are known by their IPv4 address, so that a network of IPv4-mapped addresses (RFC 4291, 2.5.5.2) is the
/// IPv4 network. `None` where such an address is written with a prefix that reaches beyond them.
fn canonical(network: IpNet) -> Option<IpNet> {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(v6) = network else { return Some(network) };
    let Some(addr) = v6.addr().to_ipv4_mapped() else { return Some(network) };
    let prefix = v6.prefix_len().checked_sub(MAPPED_PREFIX)?;
    Ipv4Net::new(addr, prefix).ok().map(IpNet::V4)
}

/// `10s`, `500ms`, `1h30m`, `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, Mistake> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(
            Mistake::new(format!("`{text}` has no unit")).help(format!("write `{text}s` for seconds"))
        );
    }
    let duration = humantime::parse_duration(text).map_err(|_| {
        Mistake::new(format!("`{text}` is no duration"))
            .help("write for instance `10s`, `500ms`, `5m` or `1h30m`")
    })?;
    if duration > DURATION_MAX {
        return Err(Mistake::new(format!("`{text}` is more than a year")).help("write `365days` or less"));
    }
    Ok(duration)
}
