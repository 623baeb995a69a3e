//! LISTEN: `6379`, `127.0.0.1:6379`, `[::1]:6379`, `8000-8100`, `53/udp`, `/run/pg.sock`. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::diagnostic::Mistake;
use crate::route::{Listen, PortRange, Protocol};

/// What a unix socket address holds (`sun_path`, unix(7)), without the final NUL.
const SOCKET_PATH_MAX_BYTES: usize = 107;

const FORMS: &str = "write a port such as `6379`, `127.0.0.1:6379`, `[::1]:6379`, `8000-8100`, `53/udp`, or a path such as `/run/pg.sock`";

pub(crate) fn parse(text: &str) -> Result<Listen, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new("the listener is missing").help(FORMS));
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(Listen::Unix);
    }
    if text.starts_with('/') {
        return socket_path(text).map(Listen::Unix);
    }
    let (address, protocol) = split_protocol(text)?;
    let (ip, ports) = split_address(address)?;
    let ports = port_range(ports).map_err(|mistake| explain(mistake, text, ports))?;
    Ok(Listen::Inet { protocol, ip, ports })
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), Mistake> {
    match text.rsplit_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((address, "tcp")) => Ok((address, Protocol::Tcp)),
        Some((address, "udp")) => Ok((address, Protocol::Udp)),
        Some((_, other)) => {
            Err(Mistake::new(format!("`{text}` cannot be listened on: `{other}` is no protocol"))
                .help("write `/tcp` or `/udp` after the port; a unix socket's path begins with `/`"))
        }
    }
}

/// The address, and what stands after it: `[::1]:80` is `::1` and `80`, a bare port has no address.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), Mistake> {
    let no_address = |ip: &str| {
        let mistake = Mistake::new(format!("`{text}` cannot be listened on: `{ip}` is no IP address"));
        mistake.help(address_help(text))
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, ports) = rest.split_once("]:").ok_or_else(|| no_address(rest.trim_end_matches(']')))?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| no_address(ip))?;
        return Ok((Some(IpAddr::V6(ip)), ports));
    }
    let Some((ip, ports)) = text.rsplit_once(':') else {
        return Ok((None, text));
    };
    let ip: Ipv4Addr = ip.parse().map_err(|_| no_address(ip))?;
    Ok((Some(IpAddr::V4(ip)), ports))
}

fn address_help(text: &str) -> String {
    let (ip, ports) = text.rsplit_once(':').unwrap_or(("", text));
    match ip {
        "" | "*" => format!("write `{ports}`: a bare port listens on all addresses"),
        "localhost" => format!("write `127.0.0.1:{ports}`"),
        _ if ip.parse::<Ipv6Addr>().is_ok() => format!("write `[{ip}]:{ports}`"),
        _ => "listen on a port of all addresses, as `6379`, or of one, as `127.0.0.1:6379`".to_owned(),
    }
}

fn port_range(text: &str) -> Result<PortRange, Mistake> {
    let Some((first, last)) = text.split_once('-') else {
        return Ok(PortRange::single(port(text)?));
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(Mistake::new(format!("the range `{text}` is upside down"))
            .help(format!("write `{last}-{first}`")));
    }
    if first == 0 && last != 0 {
        return Err(Mistake::new(format!("the range `{text}` begins with port 0"))
            .help("ports begin with 1; `0` alone takes any free port"));
    }
    Ok(PortRange { first, last })
}

fn port(text: &str) -> Result<u16, Mistake> {
    number(text)
        .ok_or_else(|| Mistake::new(format!("`{text}` is no port")).help("a port is a number up to 65535"))
}

/// Digits only: `u16::from_str` would take a `+`.
pub(crate) fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A word where a port should stand is most often a route written the wrong way round.
fn explain(mistake: Mistake, listen: &str, ports: &str) -> Mistake {
    if ports.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return Mistake::new(format!("`{listen}` cannot be listened on: `{ports}` is no port")).help(FORMS);
    }
    mistake
}

/// The path of a unix socket. What would make a route's line ambiguous is refused, so that a printed route can be
/// read again.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, Mistake> {
    let mistake = |what: &str| Mistake::new(format!("`{text}` is no path of a unix socket: {what}"));
    if !text.starts_with('/') {
        return Err(mistake("it is not absolute").help("begin the path with `/`, as in `unix:/run/pg.sock`"));
    }
    if text.ends_with('/') {
        return Err(mistake("it ends with `/`").help("name the socket itself, as in `/run/pg.sock`"));
    }
    if text.len() > SOCKET_PATH_MAX_BYTES {
        return Err(mistake(&format!("it has more than {SOCKET_PATH_MAX_BYTES} bytes"))
            .help("mount or link the directory somewhere shorter: the kernel takes no more"));
    }
    match text.chars().find(|c| !is_path_char(*c)) {
        Some(odd) => Err(mistake(&format!("it holds {odd:?}")).help("use letters, digits and `/._-+@:~`")),
        None => Ok(PathBuf::from(text)),
    }
}

pub(super) fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._-+@:~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(ip: &str, first: u16, last: u16, protocol: Protocol) -> Listen {
        let ip = if ip.is_empty() { None } else { Some(ip.parse().unwrap()) };
        Listen::Inet { protocol, ip, ports: PortRange { first, last } }
    }

    #[test]
    fn every_documented_form_is_read() {
        let tcp = |ip, first, last| inet(ip, first, last, Protocol::Tcp);
        for (text, expected) in [
            ("6379", tcp("", 6379, 6379)),
            ("0", tcp("", 0, 0)),
            ("6379/tcp", tcp("", 6379, 6379)),
            ("127.0.0.1:6379", tcp("127.0.0.1", 6379, 6379)),
            ("127.0.0.1:0", tcp("127.0.0.1", 0, 0)),
            ("[::1]:6379", tcp("::1", 6379, 6379)),
            ("8000-8100", tcp("", 8000, 8100)),
            ("8000-8000", tcp("", 8000, 8000)),
            ("127.0.0.1:8000-8100", tcp("127.0.0.1", 8000, 8100)),
            ("53/udp", inet("", 53, 53, Protocol::Udp)),
            ("[::]:53-54/udp", inet("::", 53, 54, Protocol::Udp)),
            ("/run/pg.sock", Listen::Unix("/run/pg.sock".into())),
            ("unix:/run/pg.sock", Listen::Unix("/run/pg.sock".into())),
            ("/run/postgresql/.s.PGSQL.5432", Listen::Unix("/run/postgresql/.s.PGSQL.5432".into())),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_other_form_is_answered_with_the_way_out() {
        for (text, help) in [
            ("", "write a port"),
            ("redis", "write a port such as"),
            (":6379", "write `6379`"),
            ("*:6379", "write `6379`"),
            ("localhost:6379", "write `127.0.0.1:6379`"),
            ("::1:6379", "write `[::1]:6379`"),
            ("[::1]", "listen on a port"),
            ("300.0.0.1:80", "127.0.0.1:6379"),
            ("65536", "up to 65535"),
            ("+80", "up to 65535"),
            ("8100-8000", "write `8000-8100`"),
            ("0-10", "`0` alone"),
            ("80-", "up to 65535"),
            ("53/UDP", "`/tcp` or `/udp`"),
            ("unix:pg.sock", "begin the path with `/`"),
            ("/run/", "name the socket itself"),
            ("/run/a b", "use letters"),
        ] {
            let mistake = parse(text).expect_err(text);
            let shown = mistake.help.clone().unwrap_or_default();
            assert!(shown.contains(help), "{text}: {mistake:?}");
        }
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_refused() {
        assert!(parse(&format!("/{}", "x".repeat(106))).is_ok());
        assert!(parse(&format!("/{}", "x".repeat(107))).is_err());
    }
}
