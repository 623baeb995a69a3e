//! LISTEN: `6379`, `127.0.0.1:6379`, `[::1]:6379`, `8000-8100`, `53/udp`, `443/a.example.com`, `/run/pg.sock`, `peer:NAME`. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::{digits, peer};
use crate::client_hello::ServerName;
use crate::diagnostic::Mistake;
use crate::route::{Listen, PortRange, Protocol, SharedPort};

/// The capacity of `sun_path` without the final NUL (unix(7)).
const SOCKET_PATH_MAX_BYTES: usize = 107;

const FORMS: &str = "write a port such as `6379`, `127.0.0.1:6379`, `[::1]:6379`, `8000-8100`, `53/udp`, `443/a.example.com`, a path such as `/run/pg.sock`, or `peer:NAME`";

/// Parses a listener.
pub(crate) fn parse(text: &str) -> Result<Listen, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new("missing listener").help(FORMS));
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(Listen::Unix);
    }
    if text.starts_with('/') {
        return socket_path(text).map(Listen::Unix);
    }
    if let Some(name) = text.strip_prefix("peer:") {
        return export(name);
    }
    if let Some((address, names)) = text.rsplit_once('/')
        && names.contains(['.', '*'])
    {
        return server_names(text, address, names);
    }
    let (address, protocol) = split_protocol(text)?;
    let (ip, ports) = split_address(address)?;
    let ports = port_range(ports).map_err(|mistake| explain(mistake, text, ports))?;
    Ok(Listen::Inet { protocol, ip, ports })
}

/// Parses the part after `peer:`.
fn export(text: &str) -> Result<Listen, Mistake> {
    if text.starts_with("//") {
        return Err(Mistake::new(format!("invalid listener `peer:{text}`: `peer://` is a target"))
            .help("write `PORT=peer://HOST/NAME`; to offer a service to peers, `peer:NAME=HOST:PORT`"));
    }
    let (name, protocol) = split_protocol(text)?;
    Ok(Listen::Peer { protocol, name: peer::export(name)? })
}

/// Parses a port and the server names of TLS clients, separated by `+`.
fn server_names(text: &str, address: &str, names: &str) -> Result<Listen, Mistake> {
    let (ip, ports) = split_address(address)?;
    let PortRange { first: port, last } =
        port_range(ports).map_err(|mistake| explain(mistake, text, ports))?;
    if port != last {
        return Err(Mistake::new(format!("invalid listener `{text}`: a range of ports has no server names"))
            .help(format!("write one route for each port, such as `{port}/{names}`")));
    }
    let names = names.split('+').map(server_name).collect::<Result<_, _>>()?;
    Ok(Listen::Names { port: SharedPort { ip, port }, names })
}

/// Parses `a.example.com`, `*.example.com`, `*`, or `a.`, a name of one label.
fn server_name(text: &str) -> Result<String, Mistake> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_name = |name: &str| ServerName::new(name.as_bytes()).is_some();
    if text == "*" || is_name(name) {
        return Ok(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase());
    }
    Err(Mistake::new(format!("invalid server name `{text}`")).help(
        "write a name such as `443/a.example.com`, `443/*.example.com` for all that end so, or `443/*` for every other name",
    ))
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), Mistake> {
    match text.rsplit_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((address, "tcp")) => Ok((address, Protocol::Tcp)),
        Some((address, "udp")) => Ok((address, Protocol::Udp)),
        Some((_, other)) => {
            Err(Mistake::new(format!("invalid listener `{text}`: unknown protocol `{other}`"))
                .help("write `/tcp` or `/udp` after the port, or the server name of TLS clients with a dot, as in `443/a.example.com`; a unix socket's path begins with `/`"))
        }
    }
}

/// Splits the address from the ports: `[::1]:80` into `::1` and `80`. A bare port has no address.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), Mistake> {
    let no_address = |ip: &str| {
        let mistake = Mistake::new(format!("invalid listener `{text}`: invalid IP address `{ip}`"));
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
        _ => "write a port of all addresses, as in `6379`, or of one address, as in `127.0.0.1:6379`"
            .to_owned(),
    }
}

fn port_range(text: &str) -> Result<PortRange, Mistake> {
    let Some((first, last)) = text.split_once('-') else {
        return Ok(PortRange::single(port(text)?));
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(Mistake::new(format!("invalid range `{text}`: the first port is greater than the last"))
            .help(format!("write `{last}-{first}`")));
    }
    if first == 0 && last != 0 {
        return Err(Mistake::new(format!("invalid range `{text}`: port 0 cannot be part of a range"))
            .help("ports start at 1; `0` alone selects any free port"));
    }
    Ok(PortRange { first, last })
}

fn port(text: &str) -> Result<u16, Mistake> {
    digits(text)
        .ok_or_else(|| Mistake::new(format!("invalid port `{text}`")).help("write a number up to 65535"))
}

/// Explains a word in place of a port: most often the listener and the target were swapped.
fn explain(mistake: Mistake, listen: &str, ports: &str) -> Mistake {
    if ports.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return Mistake::new(format!("invalid listener `{listen}`: invalid port `{ports}`")).help(FORMS);
    }
    mistake
}

/// Parses the path of a unix socket. Rejects characters that would make a printed route ambiguous.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, Mistake> {
    let mistake = |what: &str| Mistake::new(format!("invalid path of a unix socket `{text}`: {what}"));
    if !text.starts_with('/') {
        return Err(mistake("not absolute").help("begin the path with `/`, as in `unix:/run/pg.sock`"));
    }
    if text.ends_with('/') {
        return Err(mistake("it ends with `/`").help("name the socket itself, as in `/run/pg.sock`"));
    }
    if text.len() > SOCKET_PATH_MAX_BYTES {
        return Err(mistake(&format!("longer than {SOCKET_PATH_MAX_BYTES} bytes"))
            .help("mount or link the directory at a shorter path: the kernel accepts no more"));
    }
    match text.chars().find(|c| !is_path_char(*c)) {
        Some(odd) => Err(mistake(&format!("it contains {odd:?}")).help("use letters, digits and `/._-+@:~`")),
        None => Ok(PathBuf::from(text)),
    }
}

pub(in crate::config::grammar) fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._-+@:~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(ip: &str, first: u16, last: u16, protocol: Protocol) -> Listen {
        let ip = if ip.is_empty() { None } else { Some(ip.parse().unwrap()) };
        Listen::Inet { protocol, ip, ports: PortRange { first, last } }
    }

    fn named(ip: &str, port: u16, names: &[&str]) -> Listen {
        let ip = if ip.is_empty() { None } else { Some(ip.parse().unwrap()) };
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Listen::Names { port: SharedPort { ip, port }, names }
    }

    fn exported(name: &str, protocol: Protocol) -> Listen {
        Listen::Peer { protocol, name: name.to_owned() }
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
            ("peer:redis", exported("redis", Protocol::Tcp)),
            ("peer:redis/tcp", exported("redis", Protocol::Tcp)),
            ("peer:db_1.example.com:5432", exported("db_1.example.com:5432", Protocol::Tcp)),
            ("peer:dns/udp", exported("dns", Protocol::Udp)),
            ("443/a.example.com", named("", 443, &["a.example.com"])),
            ("443/A.Example.com.+*.b.org", named("", 443, &["*.b.org", "a.example.com"])),
            ("127.0.0.1:443/*", named("127.0.0.1", 443, &["*"])),
            ("[::1]:5432/db.", named("::1", 5432, &["db"])),
            ("/run/postgresql/.s.PGSQL.5432", Listen::Unix("/run/postgresql/.s.PGSQL.5432".into())),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_other_form_is_an_error_with_a_help() {
        for (text, help) in [
            ("", "write a port"),
            ("redis", "write a port such as"),
            ("peer:", "write a name such as"),
            ("peer:a/b", "`/tcp` or `/udp`"),
            ("peer:a@b", "letters, digits"),
            ("peer://host/redis", "`peer:NAME=HOST:PORT`"),
            (":6379", "write `6379`"),
            ("*:6379", "write `6379`"),
            ("localhost:6379", "write `127.0.0.1:6379`"),
            ("::1:6379", "write `[::1]:6379`"),
            ("[::1]", "write a port"),
            ("300.0.0.1:80", "127.0.0.1:6379"),
            ("65536", "up to 65535"),
            ("+80", "up to 65535"),
            ("8100-8000", "write `8000-8100`"),
            ("0-10", "`0` alone"),
            ("80-", "up to 65535"),
            ("53/UDP", "`/tcp` or `/udp`"),
            ("80/http", "`443/a.example.com`"),
            ("443/a..b", "`443/*.example.com`"),
            ("443/a.b.*", "`443/*.example.com`"),
            ("443/**", "`443/*.example.com`"),
            ("443/*.*", "`443/*.example.com`"),
            ("443-444/a.b", "`443/a.b`"),
            ("x/a.b", "write a port such as"),
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
    fn a_path_longer_than_the_kernel_accepts_is_an_error() {
        assert!(parse(&format!("/{}", "x".repeat(106))).is_ok());
        assert!(parse(&format!("/{}", "x".repeat(107))).is_err());
    }
}
