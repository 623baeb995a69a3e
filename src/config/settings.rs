//! The settings that are not routes. Each is declared once, in [`SETTINGS`], which the command line, the environment, the
//! configuration file, `--help` and `/config` read.
//!
//! Not in the table: flags that select the sources of routes (`--config`, `--links`, `--docker`, `--share-labels`,
//! `--name`), since a file cannot select itself and a container linked as `ambassador` sets `AMBASSADOR_NAME`; flags that
//! configure the connection to Docker, which have the names of grand-ambassador and the variables of Docker's own client;
//! and credentials, which are read from the environment only.

mod values;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::dns::Limits;
use super::peer::PeerSettings;
use super::web::WebSettings;
use super::{AdminAddr, LogConfig};
use crate::cluster::outlier::MAX_EJECTED_DEFAULT;
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::ending::AccessLog;
use crate::tls::CertificateFiles;
pub(super) use values::{admin, certificates};

/// Less than the 10 s that Docker waits between SIGTERM and SIGKILL, so that the process exits before it is killed.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(9);

/// A held session uses a file descriptor; a larger number could take the descriptors of connected sessions.
pub const MAX_HELD_DEFAULT: usize = 10_000;

/// The settings with which the program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Level and format of the log.
    pub log: LogConfig,
    /// The sessions that the access log contains.
    pub access_log: AccessLog,
    /// The number of worker threads, from 1 to 1024; by default one per core.
    pub workers: NonZeroUsize,
    /// How long open sessions may take to finish after SIGTERM.
    pub drain_timeout: Duration,
    /// The maximum number of held sessions of all routes.
    pub max_held: usize,
    /// Percentage of a route's endpoints that outlier detection may eject.
    pub max_ejected: u8,
    /// The limits on the age of DNS answers.
    pub dns: Limits,
    /// `None` for the default unix socket.
    pub admin: Option<AdminAddr>,
    /// Host names accepted by the admin API on TCP, besides IP addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The web page.
    pub web: WebSettings,
    /// The certificates of routes.
    pub certificates: Vec<CertificateFiles>,
    /// The tunnels to peers.
    pub peer: PeerSettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            log: LogConfig::default(),
            access_log: AccessLog::default(),
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            max_held: MAX_HELD_DEFAULT,
            max_ejected: MAX_EJECTED_DEFAULT,
            dns: Limits::default(),
            admin: None,
            admin_hosts: Vec::new(),
            web: WebSettings::default(),
            certificates: Vec::new(),
            peer: PeerSettings::default(),
        }
    }
}

/// The declaration of one setting.
pub struct Setting {
    /// `max-held` is the flag `--max-held`, the variable `AMBASSADOR_MAX_HELD`, the key `max-held` of the file, and the
    /// field `max_held` of `/config`. A name that begins with `peer-` is a key of the file's table `[peer]`, without that prefix.
    pub name: &'static str,
    /// The placeholder of the value in `--help`. `N` is an integer in the file, `X[,X...]` is a list.
    value_name: &'static str,
    help: &'static str,
    /// The default as `--help` shows it.
    default: &'static str,
    /// Parses a value and stores it.
    set: fn(&mut Settings, &str) -> Result<(), Mistake>,
    /// The value as `/config` shows it.
    show: fn(&Settings) -> Value,
}

/// Every setting, in the order of `--help`.
pub static SETTINGS: [Setting; 22] = [
    Setting {
        name: "log-level",
        value_name: "LEVEL",
        help: "Lowest level to log: error, warn, info, debug or trace",
        default: "info",
        set: |settings, text| values::log_level(text).map(|level| settings.log.level = level),
        show: |settings| settings.log.level.name().into(),
    },
    Setting {
        name: "log-format",
        value_name: "FORMAT",
        help: "Format of the log: text or json",
        default: "text",
        set: |settings, text| values::log_format(text).map(|format| settings.log.format = format),
        show: |settings| settings.log.format.name().into(),
    },
    Setting {
        name: "access-log",
        value_name: "WHICH",
        help: "Sessions to log: all, errors (endings other than `finished`) or off",
        default: "all",
        set: |settings, text| values::access_log(text).map(|sessions| settings.access_log = sessions),
        show: |settings| settings.access_log.name().into(),
    },
    Setting {
        name: "workers",
        value_name: "N",
        help: "Number of worker threads",
        default: "one per core",
        set: |settings, text| values::workers(text).map(|count| settings.workers = count),
        show: |settings| settings.workers.get().into(),
    },
    Setting {
        name: "drain-timeout",
        value_name: "DURATION",
        help: "How long open sessions may take to finish after SIGTERM",
        default: "9s",
        set: |settings, text| values::duration(text).map(|timeout| settings.drain_timeout = timeout),
        show: |settings| shown(settings.drain_timeout),
    },
    Setting {
        name: "max-held",
        value_name: "N",
        help: "Maximum number of sessions that wait for an endpoint at the same time",
        default: "10000",
        set: |settings, text| values::max_held(text).map(|count| settings.max_held = count),
        show: |settings| settings.max_held.into(),
    },
    Setting {
        name: "max-ejected",
        value_name: "PERCENT",
        help: "Maximum percentage of a route's endpoints that outlier detection may eject",
        default: "50%",
        set: |settings, text| values::percent(text).map(|percent| settings.max_ejected = percent),
        show: |settings| settings.max_ejected.into(),
    },
    Setting {
        name: "dns-max-ttl",
        value_name: "DURATION",
        help: "How long a DNS answer is cached at most, whatever its TTL",
        default: "30s",
        set: |settings, text| values::dns_max_ttl(text).map(|ttl| settings.dns.max_ttl = ttl),
        show: |settings| shown(settings.dns.max_ttl),
    },
    Setting {
        name: "dns-stale",
        value_name: "DURATION",
        help: "How long the last DNS answer is kept while lookups fail",
        default: "1h",
        set: |settings, text| values::duration_or_off(text).map(|stale| settings.dns.stale = stale),
        show: |settings| shown(settings.dns.stale),
    },
    Setting {
        name: "dns-nx-stale",
        value_name: "DURATION",
        help: "How long the last DNS answer is kept after servers report that the name does not exist",
        default: "30s",
        set: |settings, text| values::duration_or_off(text).map(|stale| settings.dns.nx_stale = stale),
        show: |settings| shown(settings.dns.nx_stale),
    },
    Setting {
        name: "admin",
        value_name: "ADDR",
        help: "Address of the admin API: unix:/path, @name, or HOST:PORT in addition to the default",
        default: "a unix socket",
        set: |settings, text| admin(text).map(|address| settings.admin = Some(address)),
        show: |settings| settings.admin.as_ref().map(ToString::to_string).into(),
    },
    Setting {
        name: "admin-host",
        value_name: "NAME[,NAME...]",
        help: "Host names that the admin API and the web page accept, besides IP addresses and localhost",
        default: "none",
        set: |settings, text| values::admin_hosts(text).map(|names| settings.admin_hosts = names),
        show: |settings| settings.admin_hosts.clone().into(),
    },
    Setting {
        name: "web",
        value_name: "ADDR",
        help: "Address of the web page that shows and controls this ambassador: IP:PORT",
        default: "off",
        set: |settings, text| values::web(text).map(|addr| settings.web.listen = addr),
        show: |settings| settings.web.listen.map(|addr| addr.to_string()).into(),
    },
    Setting {
        name: "web-token-file",
        value_name: "FILE",
        help: "File with the token for the web page, required unless its address is a loopback one; read at each request",
        default: "none",
        set: |settings, text| values::path(text).map(|path| settings.web.token_file = Some(path)),
        show: |settings| shown_path(settings.web.token_file.as_deref()),
    },
    Setting {
        name: "certificate",
        value_name: "NAME=CERT[,KEY][,...]",
        help: "Certificates for `tls=NAME` and `cert=NAME` of routes, in PEM files, which are read again when they change",
        default: "none",
        set: |settings, text| certificates(text).map(|found| settings.certificates = found),
        show: |settings| settings.certificates.iter().map(ToString::to_string).collect::<Vec<_>>().into(),
    },
    Setting {
        name: "peer-listen",
        value_name: "ADDR",
        help: "Where peers can dial this ambassador: :PORT, IP:PORT, or off",
        default: ":15008 if a route needs it",
        set: |settings, text| values::peer_listen(text).map(|listen| settings.peer.listen = listen),
        show: |settings| settings.peer.listen.to_string().into(),
    },
    Setting {
        name: "peer-dial",
        value_name: "HOST[:PORT][,...]",
        help: "Peers to keep a tunnel open to, which can use the exports of this ambassador through it: for a host behind NAT",
        default: "none",
        set: |settings, text| values::peer_dial(text).map(|peers| settings.peer.dial = peers),
        show: |settings| settings.peer.dial.iter().map(ToString::to_string).collect::<Vec<_>>().into(),
    },
    Setting {
        name: "peer-secret-file",
        value_name: "FILE",
        help: "File with the secret that all peers share: the first line is in use, further lines are accepted",
        default: "none",
        set: |settings, text| values::path(text).map(|path| settings.peer.secret_file = Some(path)),
        show: |settings| shown_path(settings.peer.secret_file.as_deref()),
    },
    Setting {
        name: "peer-cert",
        value_name: "FILE",
        help: "Certificate and key for peers, in one PEM file; read again when it changes",
        default: "none",
        set: |settings, text| values::path(text).map(|path| settings.peer.cert = Some(path)),
        show: |settings| shown_path(settings.peer.cert.as_deref()),
    },
    Setting {
        name: "peer-ca",
        value_name: "FILE",
        help: "CA that issued the certificates of the peers; read again when it changes",
        default: "none",
        set: |settings, text| values::path(text).map(|path| settings.peer.ca = Some(path)),
        show: |settings| shown_path(settings.peer.ca.as_deref()),
    },
    Setting {
        name: "peer-crl",
        value_name: "FILE",
        help: "Certificates that the CA has revoked; read again when it changes",
        default: "none",
        set: |settings, text| values::path(text).map(|path| settings.peer.crl = Some(path)),
        show: |settings| shown_path(settings.peer.crl.as_deref()),
    },
    Setting {
        name: "peer-name",
        value_name: "NAME",
        help: "Name of this ambassador for peers with the same secret",
        default: "the name of the host",
        set: |settings, text| values::peer_name(text).map(|name| settings.peer.name = Some(name)),
        show: |settings| settings.peer.name.clone().into(),
    },
];

/// Returns a path as `/config` shows it; the content of the file is never shown.
fn shown_path(path: Option<&Path>) -> Value {
    path.map(|path| path.display().to_string()).into()
}

fn shown(duration: Duration) -> Value {
    humantime::format_duration(duration).to_string().into()
}

impl Setting {
    /// Returns the setting of this name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Returns the name of the environment variable.
    pub(crate) fn variable(&self) -> String {
        variable_name(self.name)
    }

    /// Returns the command-line flag.
    pub(super) fn flag(&self) -> clap::Arg {
        let Setting { name, value_name, help, default, .. } = self;
        let repeatable = if self.is_list() { "; repeatable" } else { "" };
        let help = format!("{help}{repeatable} [env: {}] [default: {default}]", self.variable());
        let flag = clap::Arg::new(name).long(name).value_name(value_name).help(help);
        let flag = if self.is_list() { flag.action(clap::ArgAction::Append) } else { flag };
        if self.table_key().is_some() { flag.help_heading("Peers") } else { flag }
    }

    /// Returns the key in the table `[peer]` of the file; `None` for a key at the top.
    pub(super) fn table_key(&self) -> Option<&'static str> {
        self.name.strip_prefix("peer-")
    }

    /// Returns whether it belongs to the credentials for peers.
    pub(super) fn is_credential(&self) -> bool {
        matches!(self.name, "peer-secret-file" | "peer-cert" | "peer-ca" | "peer-crl" | "peer-name")
    }

    /// Returns whether the file takes a list, and the flag may be repeated. The values are joined by commas.
    pub(super) fn is_list(&self) -> bool {
        self.value_name.ends_with("...]")
    }

    /// Returns whether the file takes an integer.
    pub(super) fn is_integer(&self) -> bool {
        self.value_name == "N"
    }

    /// Returns an error if `value` is invalid.
    pub(super) fn check(&self, value: &str) -> Result<(), Mistake> {
        (self.set)(&mut Settings::default(), value)
    }
}

impl PartialEq for Setting {
    fn eq(&self, other: &Setting) -> bool {
        self.name == other.name
    }
}

impl Eq for Setting {}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Returns the environment variable of a name in kebab case.
pub(super) fn variable_name(name: &str) -> String {
    format!("AMBASSADOR_{}", name.to_uppercase().replace('-', "_"))
}

/// What one source sets, as it was written.
pub type SettingValues = Vec<(&'static Setting, String)>;

impl Settings {
    /// Overrides these settings by those of a source of higher precedence. Returns every mistake; an invalid value
    /// changes nothing.
    pub(super) fn apply(
        &mut self,
        values: &SettingValues,
        place: impl Fn(&Setting) -> Place,
    ) -> Vec<Diagnostic> {
        let set = |(setting, value): &(&'static Setting, String)| {
            (setting.set)(self, value).err().map(|mistake| mistake.at(&place(setting)))
        };
        values.iter().filter_map(set).collect()
    }

    /// Returns every setting by its field of `/config`.
    pub fn shown(&self) -> impl Iterator<Item = (String, Value)> {
        SETTINGS.iter().map(|setting| (setting.name.replace('-', "_"), (setting.show)(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::peer::{PeerDial, PeerListen};
    use crate::config::{LogFormat, LogLevel};

    fn read(name: &str, value: &str) -> Result<Settings, Mistake> {
        let mut settings = Settings::default();
        (Setting::find(name).unwrap().set)(&mut settings, value).map(|()| settings)
    }

    #[test]
    fn every_setting_is_read_and_shown() {
        let values = [
            "warning",
            "json",
            "errors",
            "2",
            "1m",
            "0",
            "30%",
            "5s",
            "off",
            "9s",
            "127.0.0.1:9901",
            "a,b.c",
            "127.0.0.1:9700",
            "/t",
            "web=/c,/k,web=/d",
            "10.0.0.1:1",
            "hub,10.0.0.2:1",
            "/s",
            "/cert",
            "/ca",
            "/crl",
            "web",
        ];
        let given = SETTINGS.iter().zip(values.map(str::to_owned)).collect();
        let mut settings = Settings::default();
        assert_eq!(settings.apply(&given, |_| Place::Built), []);
        let expected = Settings {
            log: LogConfig { level: LogLevel::Warn, format: LogFormat::Json },
            access_log: AccessLog::Errors,
            workers: NonZeroUsize::new(2).unwrap(),
            drain_timeout: Duration::from_secs(60),
            max_held: 0,
            max_ejected: 30,
            dns: Limits {
                max_ttl: Duration::from_secs(5),
                stale: Duration::ZERO,
                nx_stale: Duration::from_secs(9),
            },
            admin: Some(AdminAddr::Tcp("127.0.0.1:9901".parse().unwrap())),
            admin_hosts: vec!["a".to_owned(), "b.c".to_owned()],
            web: WebSettings {
                listen: Some("127.0.0.1:9700".parse().unwrap()),
                token_file: Some("/t".into()),
            },
            certificates: [("/c", Some("/k")), ("/d", None)]
                .map(|(cert, key)| CertificateFiles {
                    name: "web".to_owned(),
                    cert: cert.into(),
                    key: key.map(Into::into),
                })
                .to_vec(),
            peer: PeerSettings {
                listen: PeerListen::Addr { ip: Some("10.0.0.1".parse().unwrap()), port: 1 },
                dial: [("hub", 15008), ("10.0.0.2", 1)]
                    .map(|(host, port)| PeerDial { host: host.to_owned(), port })
                    .to_vec(),
                secret_file: Some("/s".into()),
                cert: Some("/cert".into()),
                ca: Some("/ca".into()),
                crl: Some("/crl".into()),
                name: Some("web".to_owned()),
                has_foreign_ca: false,
            },
        };
        assert_eq!(settings, expected);
        let shown: Vec<String> = settings.shown().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [
                r#"log_level="warn""#,
                r#"log_format="json""#,
                r#"access_log="errors""#,
                "workers=2",
                r#"drain_timeout="1m""#,
                "max_held=0",
                "max_ejected=30",
                r#"dns_max_ttl="5s""#,
                r#"dns_stale="0s""#,
                r#"dns_nx_stale="9s""#,
                r#"admin="127.0.0.1:9901""#,
                r#"admin_host=["a","b.c"]"#,
                r#"web="127.0.0.1:9700""#,
                r#"web_token_file="/t""#,
                r#"certificate=["web=/c,/k","web=/d"]"#,
                r#"peer_listen="10.0.0.1:1""#,
                r#"peer_dial=["hub:15008","10.0.0.2:1"]"#,
                r#"peer_secret_file="/s""#,
                r#"peer_cert="/cert""#,
                r#"peer_ca="/ca""#,
                r#"peer_crl="/crl""#,
                r#"peer_name="web""#,
            ]
        );
    }

    #[test]
    fn the_default_of_the_help_is_the_default_that_runs() {
        let defaults = Settings::default();
        let in_words = ["workers", "admin", "admin-host", "web-token-file", "certificate"];
        let is_in_words =
            |setting: &Setting| in_words.contains(&setting.name) || setting.table_key().is_some();
        for setting in SETTINGS.iter().filter(|setting| !is_in_words(setting)) {
            assert_eq!(read(setting.name, setting.default).as_ref(), Ok(&defaults), "{setting:?}");
        }
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
    fn peers_listen_on_an_address_and_dial_hosts() {
        let addr = |ip: Option<&str>, port| PeerListen::Addr { ip: ip.map(|ip| ip.parse().unwrap()), port };
        for (text, expected, shown) in [
            ("off", PeerListen::Off, "off"),
            (":15009", addr(None, 15009), ":15009"),
            ("15009", addr(None, 15009), ":15009"),
            ("127.0.0.1:0", addr(Some("127.0.0.1"), 0), "127.0.0.1:0"),
            ("10.0.0.1", addr(Some("10.0.0.1"), 15008), "10.0.0.1:15008"),
            ("[::1]:5", addr(Some("::1"), 5), "[::1]:5"),
            ("fd00::1", addr(Some("fd00::1"), 15008), "[fd00::1]:15008"),
        ] {
            let listen = read("peer-listen", text).unwrap().peer.listen;
            assert_eq!((listen, listen.to_string().as_str()), (expected, shown));
        }
        let dial =
            read("peer-dial", "hub.example.com,[fd00::1],10.0.0.1:5,hub.example.com").unwrap().peer.dial;
        let shown: Vec<String> = dial.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["hub.example.com:15008", "[fd00::1]:15008", "10.0.0.1:5"]);
    }

    #[test]
    fn log_levels_of_the_predecessors_are_accepted() {
        for (text, level) in
            [("fatal", LogLevel::Error), ("panic", LogLevel::Error), ("DEBUG", LogLevel::Debug)]
        {
            assert_eq!(read("log-level", text).unwrap().log.level, level);
        }
    }

    #[test]
    fn every_mistake_has_a_help() {
        for (name, value, help) in [
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
            ("certificate", "web", "`web=/etc/"),
            ("certificate", "web=", "`web=/etc/"),
            ("certificate", "a b=/c", "letters, digits"),
            ("certificate", "web=/c,/k,/l", "at most one key"),
            ("peer-listen", "host1", "`off`"),
            ("peer-listen", "[::1", "`off`"),
            ("peer-listen", ":70000", "`off`"),
            ("peer-dial", "", "host:port"),
            ("peer-dial", "hub,", "host:port"),
            ("peer-dial", "hub:0", "from 1 to 65535"),
            ("peer-dial", "peer://hub", "`hub.example.com`"),
            ("peer-secret-file", "", "path of a file"),
            ("peer-name", "a b", "letters, digits"),
            ("peer-name", "a..b", "letters, digits"),
            ("log-level", "inof", "`info`"),
            ("log-format", "jsn", "`json`"),
            ("access-log", "error", "`errors`"),
        ] {
            let mistake = read(name, value).expect_err(value);
            assert!(mistake.help.as_deref().unwrap_or("").contains(help), "{name}={value}: {mistake:?}");
        }
    }

    #[test]
    fn a_later_source_overrides_an_earlier_one_setting_by_setting() {
        let values = |pairs: &[(&str, &str)]| -> SettingValues {
            pairs.iter().map(|(name, value)| (Setting::find(name).unwrap(), (*value).to_owned())).collect()
        };
        let mut settings = Settings::default();
        settings.apply(&values(&[("workers", "2"), ("max-held", "5")]), |_| Place::Built);
        settings.apply(&values(&[("workers", "1")]), |_| Place::Built);
        assert_eq!((settings.workers.get(), settings.max_held), (1, 5));
    }
}
