//! The settings that are not routes, by the names of their flags, as one source gave them. Pure.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use super::grammar::listen::socket_path;
use super::grammar::options::duration;
use super::nearest::suggest;
use super::{AdminAddr, LogFormat, LogLevel};
use crate::config::dns::TTL_FLOOR;
use crate::diagnostic::Mistake;
use crate::ending::AccessLog;

/// Each is a flag `--KEY`, a variable `AMBASSADOR_KEY` and a key at the top of the file.
pub(crate) const KEYS: [&str; 12] = [
    "workers",
    "drain-timeout",
    "max-held",
    "max-ejected",
    "dns-max-ttl",
    "dns-stale",
    "dns-nx-stale",
    "admin",
    "admin-host",
    "log-level",
    "log-format",
    "access-log",
];

/// More threads than any machine we run on has cores; a worker is a thread, and threads are not free.
const WORKERS_MAX: usize = 1024;

/// `None` where the source says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub workers: Option<NonZeroUsize>,
    pub drain_timeout: Option<Duration>,
    pub max_held: Option<usize>,
    /// Percent of a cluster.
    pub max_ejected: Option<u8>,
    pub dns_max_ttl: Option<Duration>,
    pub dns_stale: Option<Duration>,
    pub dns_nx_stale: Option<Duration>,
    pub admin: Option<AdminAddr>,
    pub admin_hosts: Option<Vec<String>>,
    pub log_level: Option<LogLevel>,
    pub log_format: Option<LogFormat>,
    pub access_log: Option<AccessLog>,
}

impl Settings {
    /// These, and where they say nothing, those of the later source.
    #[must_use]
    pub fn or(self, later: Settings) -> Settings {
        let Settings {
            workers,
            drain_timeout,
            max_held,
            max_ejected,
            dns_max_ttl,
            dns_stale,
            dns_nx_stale,
            admin,
            admin_hosts,
            log_level,
            log_format,
            access_log,
        } = self;
        Settings {
            workers: workers.or(later.workers),
            drain_timeout: drain_timeout.or(later.drain_timeout),
            max_held: max_held.or(later.max_held),
            max_ejected: max_ejected.or(later.max_ejected),
            dns_max_ttl: dns_max_ttl.or(later.dns_max_ttl),
            dns_stale: dns_stale.or(later.dns_stale),
            dns_nx_stale: dns_nx_stale.or(later.dns_nx_stale),
            admin: admin.or(later.admin),
            admin_hosts: admin_hosts.or(later.admin_hosts),
            log_level: log_level.or(later.log_level),
            log_format: log_format.or(later.log_format),
            access_log: access_log.or(later.access_log),
        }
    }

    /// Sets the one of this name. `key` must be one of [`KEYS`].
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), Mistake> {
        match key {
            "workers" => self.workers = Some(workers(value)?),
            "drain-timeout" => self.drain_timeout = Some(duration(value)?),
            "max-held" => self.max_held = Some(max_held(value)?),
            "max-ejected" => self.max_ejected = Some(percent(value)?),
            "dns-max-ttl" => self.dns_max_ttl = Some(dns_max_ttl(value)?),
            "dns-stale" => self.dns_stale = Some(dns_stale(value)?),
            "dns-nx-stale" => self.dns_nx_stale = Some(dns_stale(value)?),
            "admin" => self.admin = Some(admin(value)?),
            "admin-host" => self.admin_hosts = Some(admin_hosts(value)?),
            "log-level" => self.log_level = Some(log_level(value)?),
            "log-format" => self.log_format = Some(log_format(value)?),
            "access-log" => self.access_log = Some(access_log(value)?),
            _ => return Err(Mistake::new(format!("`{key}` is no setting")).help(suggest(key, &KEYS))),
        }
        Ok(())
    }
}

fn digits(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn workers(text: &str) -> Result<NonZeroUsize, Mistake> {
    digits(text).filter(|count| *count <= WORKERS_MAX).and_then(NonZeroUsize::new).ok_or_else(|| {
        Mistake::new(format!("`{text}` is no number of workers"))
            .help(format!("write a number from 1 to {WORKERS_MAX}, or leave it out for one per core"))
    })
}

fn max_held(text: &str) -> Result<usize, Mistake> {
    digits(text).ok_or_else(|| {
        Mistake::new(format!("`{text}` is no number of sessions")).help("write a number such as `10000`")
    })
}

fn percent(text: &str) -> Result<u8, Mistake> {
    let number = digits(text.strip_suffix('%').unwrap_or(text));
    number.and_then(|number| u8::try_from(number).ok()).filter(|percent| *percent <= 100).ok_or_else(|| {
        Mistake::new(format!("`{text}` is no part of a cluster"))
            .help("write a percentage from `0%`, which is off, to `100%`")
    })
}

fn dns_max_ttl(text: &str) -> Result<Duration, Mistake> {
    let ttl = duration(text)?;
    if ttl < TTL_FLOOR {
        return Err(Mistake::new(format!(
            "`{text}` is too short: a name is asked for at most once a second"
        ))
        .help("write `1s` or more"));
    }
    Ok(ttl)
}

fn dns_stale(text: &str) -> Result<Duration, Mistake> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text) }
}

pub(super) fn admin(text: &str) -> Result<AdminAddr, Mistake> {
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
        Mistake::new(format!("`{text}` is no address for the admin API"))
            .help("write `unix:/path`, `@name`, or an IP address and a port such as `127.0.0.1:9901`")
    })
}

/// Of an abstract socket, unix(7): `sun_path` has 108 bytes, and the first is a zero.
const ABSTRACT_NAME_BYTES_MAX: usize = 107;

fn abstract_name(name: &str) -> Result<AdminAddr, Mistake> {
    if name.is_empty() || name.len() > ABSTRACT_NAME_BYTES_MAX {
        return Err(Mistake::new(format!("`@{name}` is no name of an abstract socket"))
            .help(format!("write 1 to {ABSTRACT_NAME_BYTES_MAX} bytes after the `@`")));
    }
    Ok(AdminAddr::Abstract(name.to_owned()))
}

fn admin_hosts(text: &str) -> Result<Vec<String>, Mistake> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    match text.split(',').find(|name| !is_name(name)) {
        None => Ok(text.split(',').map(str::to_owned).collect()),
        Some(name) => Err(Mistake::new(format!("`{name}` is no host name"))
            .help("write names without a port, such as `ambassador,admin.internal`")),
    }
}

/// The ancestors' names too: `fatal` and `panic` leave nothing but errors.
fn log_level(text: &str) -> Result<LogLevel, Mistake> {
    match text.to_ascii_lowercase().as_str() {
        "error" | "fatal" | "panic" => Ok(LogLevel::Error),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        other => Err(Mistake::new(format!("`{text}` is no log level"))
            .help(suggest(other, &["error", "warn", "info", "debug", "trace"]))),
    }
}

fn log_format(text: &str) -> Result<LogFormat, Mistake> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Mistake::new(format!("`{text}` is no log format")).help(suggest(text, &["text", "json"]))),
    }
}

fn access_log(text: &str) -> Result<AccessLog, Mistake> {
    let all = [AccessLog::Off, AccessLog::Errors, AccessLog::All];
    all.into_iter().find(|setting| setting.name() == text).ok_or_else(|| {
        Mistake::new(format!("invalid access log `{text}`")).help(suggest(text, &all.map(AccessLog::name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: &str) -> Result<Settings, Mistake> {
        let mut settings = Settings::default();
        settings.set(key, value).map(|()| settings)
    }

    #[test]
    fn every_setting_is_read() {
        let mut settings = Settings::default();
        for (key, value) in KEYS.into_iter().zip([
            "2",
            "1m",
            "0",
            "30%",
            "5s",
            "off",
            "9s",
            "127.0.0.1:9901",
            "a,b.c",
            "warning",
            "json",
            "errors",
        ]) {
            settings.set(key, value).unwrap();
        }
        let expected = Settings {
            workers: NonZeroUsize::new(2),
            drain_timeout: Some(Duration::from_secs(60)),
            max_held: Some(0),
            max_ejected: Some(30),
            dns_max_ttl: Some(Duration::from_secs(5)),
            dns_stale: Some(Duration::ZERO),
            dns_nx_stale: Some(Duration::from_secs(9)),
            admin: Some(AdminAddr::Tcp("127.0.0.1:9901".parse().unwrap())),
            admin_hosts: Some(vec!["a".to_owned(), "b.c".to_owned()]),
            log_level: Some(LogLevel::Warn),
            log_format: Some(LogFormat::Json),
            access_log: Some(AccessLog::Errors),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn the_admin_address_is_a_socket_or_an_address() {
        let path = || Some(AdminAddr::Unix("/run/a.sock".into()));
        for text in ["/run/a.sock", "unix:/run/a.sock", "unix:///run/a.sock"] {
            assert_eq!(read("admin", text).unwrap().admin, path(), "{text}");
        }
        let local = Some(AdminAddr::Tcp("127.0.0.1:9".parse().unwrap()));
        assert_eq!(read("admin", "localhost:9").unwrap().admin, local);
        assert!(read("admin", "[::1]:9901").is_ok());
        assert_eq!(read("admin", "@a/b").unwrap().admin, Some(AdminAddr::Abstract("a/b".to_owned())));
    }

    #[test]
    fn the_ancestors_log_levels_are_known() {
        for (text, level) in
            [("fatal", LogLevel::Error), ("panic", LogLevel::Error), ("DEBUG", LogLevel::Debug)]
        {
            assert_eq!(read("log-level", text).unwrap().log_level, Some(level));
        }
    }

    #[test]
    fn every_mistake_has_a_way_out() {
        for (key, value, help) in [
            ("workers", "0", "from 1 to 1024"),
            ("workers", "many", "one per core"),
            ("drain-timeout", "10", "`10s`"),
            ("max-held", "-1", "10000"),
            ("max-ejected", "101%", "`100%`"),
            ("max-ejected", "half", "`0%`"),
            ("dns-max-ttl", "0", "`1s` or more"),
            ("dns-stale", "10", "`10s`"),
            ("dns-nx-stale", "10", "`10s`"),
            ("admin", "9901", "127.0.0.1:9901"),
            ("admin", "unix:a.sock", "begin the path"),
            ("admin", "@", "after the `@`"),
            ("admin-host", "a,", "without a port"),
            ("admin-host", "a:80", "without a port"),
            ("log-level", "inof", "`info`"),
            ("log-format", "jsn", "`json`"),
            ("access-log", "error", "`errors`"),
            ("wrokers", "1", "did you mean `workers`?"),
        ] {
            let mistake = read(key, value).expect_err(value);
            assert!(mistake.help.as_deref().unwrap_or("").contains(help), "{key}={value}: {mistake:?}");
        }
    }

    #[test]
    fn the_earlier_source_wins_setting_by_setting() {
        let earlier = read("workers", "1").unwrap();
        let mut later = read("workers", "2").unwrap();
        later.set("max-held", "5").unwrap();
        let both = earlier.or(later);
        assert_eq!((both.workers, both.max_held), (NonZeroUsize::new(1), Some(5)));
    }
}
