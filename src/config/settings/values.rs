//! The values of settings: one parser for each kind. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::dns::TTL_FLOOR;
use crate::config::grammar::digits;
use crate::config::grammar::listen::socket_path;
use crate::config::grammar::options::certificate_name;
use crate::config::grammar::options::one_of;
pub(super) use crate::config::grammar::options::{duration, duration_or_off};
use crate::config::grammar::target::{at, split_port};
use crate::config::peer::{PeerDial, PeerListen};
use crate::config::{AdminAddr, LogFormat, LogLevel};
use crate::credentials::name;
use crate::diagnostic::Mistake;
use crate::ending::AccessLog;
use crate::route::{PEER_PORT, Target};
use crate::tls::CertificateFiles;

/// Well above the number of cores of any machine. Each worker is a thread.
const WORKERS_MAX: usize = 1024;

/// The length of an abstract socket's name: `sun_path` has 108 bytes, and the first is zero (unix(7)).
const ABSTRACT_NAME_BYTES_MAX: usize = 107;

pub(super) fn workers(text: &str) -> Result<NonZeroUsize, Mistake> {
    digits(text).filter(|count| *count <= WORKERS_MAX).and_then(NonZeroUsize::new).ok_or_else(|| {
        Mistake::new(format!("invalid number of workers `{text}`"))
            .help(format!("write a number from 1 to {WORKERS_MAX}, or omit it for one per core"))
    })
}

pub(super) fn max_held(text: &str) -> Result<usize, Mistake> {
    digits(text).ok_or_else(|| {
        Mistake::new(format!("invalid number of sessions `{text}`")).help("write a number such as `10000`")
    })
}

/// Parses a percentage; the percent sign is optional.
pub(super) fn percent(text: &str) -> Result<u8, Mistake> {
    digits(text.strip_suffix('%').unwrap_or(text)).filter(|percent| *percent <= 100).ok_or_else(|| {
        Mistake::new(format!("invalid percentage `{text}`"))
            .help("write a percentage from `0%`, which is off, to `100%`")
    })
}

pub(super) fn dns_max_ttl(text: &str) -> Result<Duration, Mistake> {
    let ttl = duration(text)?;
    if ttl < TTL_FLOOR {
        return Err(Mistake::new(format!("`{text}` is too short: a name is resolved at most once a second"))
            .help("write `1s` or more"));
    }
    Ok(ttl)
}

/// Parses an address of the admin API: `/path`, `unix:/path`, `@name`, or an IP address or `localhost` with a port.
pub(in crate::config) fn admin(text: &str) -> Result<AdminAddr, Mistake> {
    if text.starts_with('/') {
        return Ok(AdminAddr::Unix(socket_path(text)?));
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(AdminAddr::Unix(socket_path(path.strip_prefix("//").unwrap_or(path))?));
    }
    if let Some(name) = text.strip_prefix('@') {
        return abstract_name(name);
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(AdminAddr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    }
    text.parse().map(AdminAddr::Tcp).map_err(|_| {
        Mistake::new(format!("invalid address for the admin API `{text}`"))
            .help("write `unix:/path`, `@name`, or an IP address and a port such as `127.0.0.1:9901`")
    })
}

/// Parses `IP:PORT`, `localhost:PORT` or `off`.
pub(super) fn web(text: &str) -> Result<Option<SocketAddr>, Mistake> {
    match (text, admin(text)) {
        ("off", _) => Ok(None),
        (_, Ok(AdminAddr::Tcp(addr))) => Ok(Some(addr)),
        _ => Err(Mistake::new(format!("invalid address for the web page `{text}`"))
            .help("write an IP address and a port such as `127.0.0.1:9700`")),
    }
}

fn abstract_name(name: &str) -> Result<AdminAddr, Mistake> {
    if name.is_empty() || name.len() > ABSTRACT_NAME_BYTES_MAX {
        return Err(Mistake::new(format!("invalid name of an abstract socket `@{name}`"))
            .help(format!("write 1 to {ABSTRACT_NAME_BYTES_MAX} bytes after the `@`")));
    }
    Ok(AdminAddr::Abstract(name.to_owned()))
}

pub(super) fn admin_hosts(text: &str) -> Result<Vec<String>, Mistake> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    match text.split(',').find(|name| !is_name(name)) {
        None => Ok(text.split(',').map(str::to_owned).collect()),
        Some(name) => Err(Mistake::new(format!("invalid host name `{name}`"))
            .help("write names without a port, such as `ambassador,admin.internal`")),
    }
}

/// Accepts the names of grand-ambassador's logging library too: `fatal` and `panic` are `error`.
pub(super) fn log_level(text: &str) -> Result<LogLevel, Mistake> {
    match text.to_ascii_lowercase().as_str() {
        "fatal" | "panic" => Ok(LogLevel::Error),
        "warning" => Ok(LogLevel::Warn),
        level => one_of("log-level", level, LogLevel::ALL, LogLevel::name),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Mistake> {
    one_of("log-format", text, LogFormat::ALL, LogFormat::name)
}

pub(super) fn access_log(text: &str) -> Result<AccessLog, Mistake> {
    let all = [AccessLog::Off, AccessLog::Errors, AccessLog::All];
    one_of("access-log", text, all, AccessLog::name)
}

/// Parses `off`, `:PORT`, `PORT`, `IP` or `IP:PORT`.
pub(super) fn peer_listen(text: &str) -> Result<PeerListen, Mistake> {
    if text == "off" {
        return Ok(PeerListen::Off);
    }
    if let Some(port) = digits(text.strip_prefix(':').unwrap_or(text)) {
        return Ok(PeerListen::Addr { ip: None, port });
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(PeerListen::Addr { ip: Some(addr.ip()), port: addr.port() });
    }
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match inner.parse::<IpAddr>() {
        Ok(ip) => Ok(PeerListen::Addr { ip: Some(ip), port: PEER_PORT }),
        Err(_) => {
            Err(Mistake::new(format!("invalid address to listen for peers on `{text}`")).help(format!(
                "write `:{PEER_PORT}`, an IP address and a port such as `10.0.0.1:{PEER_PORT}`, or `off`"
            )))
        }
    }
}

/// Parses a list of `HOST[:PORT]`, without duplicates.
pub(super) fn peer_dial(text: &str) -> Result<Vec<PeerDial>, Mistake> {
    let mut peers = Vec::new();
    for word in text.split(',') {
        let peer = dialled_peer(word)?;
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    Ok(peers)
}

fn dialled_peer(text: &str) -> Result<PeerDial, Mistake> {
    if text.contains('/') {
        return Err(Mistake::new(format!("invalid peer to dial `{text}`"))
            .help("write a host, and a port if it is not 15008, such as `hub.example.com`"));
    }
    let (host, port) = split_port(text)?;
    let port = port.unwrap_or(PEER_PORT);
    let host = match at(host, port)? {
        Target::Addr(addr) => addr.ip().to_string(),
        _ => host.to_owned(),
    };
    Ok(PeerDial { host, port })
}

pub(super) fn peer_name(text: &str) -> Result<String, Mistake> {
    name::check(text)?;
    Ok(text.to_owned())
}

pub(super) fn path(text: &str) -> Result<PathBuf, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new("missing path").help("write the path of a file"));
    }
    Ok(PathBuf::from(text))
}

/// Parses a list of `NAME=CERT[,KEY]`. A word without `NAME=` is the key of the certificate before it.
pub(in crate::config) fn certificates(text: &str) -> Result<Vec<CertificateFiles>, Mistake> {
    let mut found: Vec<CertificateFiles> = Vec::new();
    for word in text.split(',') {
        match (word.split_once('=').filter(|(name, _)| !name.contains('/')), found.last_mut()) {
            (Some((name, cert)), _) if !cert.is_empty() => {
                let (name, cert) = (certificate_name(name)?, PathBuf::from(cert));
                found.push(CertificateFiles { name, cert, key: None });
            }
            (None, Some(CertificateFiles { key: key @ None, .. })) if !word.is_empty() => {
                *key = Some(PathBuf::from(word));
            }
            (None, Some(_)) => {
                let mistake = Mistake::new(format!("unexpected `{word}` after the key of a certificate"));
                return Err(mistake.help("a certificate has at most one key: `NAME=CERT,KEY`"));
            }
            _ => {
                let mistake = Mistake::new(format!("invalid certificate `{word}`: no name or no file"));
                let help = "write its name and its PEM files, as in `web=/etc/ssl/web.crt,/etc/ssl/web.key`";
                return Err(mistake.help(help));
            }
        }
    }
    found.dedup();
    Ok(found)
}
