//! The settings of peers (`--peer-listen`, `--peer-dial`, `--peer-secret-file`, ...), and which routes they permit. Pure.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::credentials::CredentialFiles;
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::route::{Listen, PEER_PORT, PeerHost, PeerTarget, PortRange, Protocol, Route, Target};

/// The settings of the tunnels to peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSettings {
    /// Where peers can dial us.
    pub listen: PeerListen,
    /// The peers to which a tunnel is kept open, to serve our exports over it.
    pub dial: Vec<PeerDial>,
    /// The file of the shared secret. Excludes `cert`, `ca` and `crl`.
    pub secret_file: Option<PathBuf>,
    /// Our certificate with its key, in one PEM file. Set if and only if `ca` is.
    pub cert: Option<PathBuf>,
    /// The CA that issued the certificates of peers.
    pub ca: Option<PathBuf>,
    /// The certificates that the CA has revoked.
    pub crl: Option<PathBuf>,
    /// Our self-asserted name with a secret; by default the name of the host.
    pub name: Option<String>,
    /// Whether `ca` is not a CA of `ambassador ca`, as found when the file was read: then every export needs `peers`.
    pub has_foreign_ca: bool,
}

/// Where peers can dial us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PeerListen {
    /// On all addresses, port 15008, if a route needs it.
    #[default]
    Default,
    /// Nowhere.
    Off,
    /// Here, whether or not a route needs it.
    Addr {
        /// `None` for all addresses, IPv6 and IPv4.
        ip: Option<IpAddr>,
        /// Port 0 selects a free port.
        port: u16,
    },
}

/// A peer to keep a tunnel to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerDial {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port of its `--peer-listen`.
    pub port: u16,
}

/// What proves our identity to peers, and theirs to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerCredentials {
    /// Nothing: there are no tunnels.
    None,
    /// A shared secret. Names are self-asserted.
    Secret,
    /// Certificates.
    Files,
}

impl PeerSettings {
    /// Returns the kind of credentials.
    pub fn credentials(&self) -> PeerCredentials {
        match (&self.secret_file, &self.cert) {
            (Some(_), _) => PeerCredentials::Secret,
            (None, Some(_)) => PeerCredentials::Files,
            (None, None) => PeerCredentials::None,
        }
    }

    /// Returns the files of the credentials; `None` if there are none.
    pub fn credential_files(&self) -> Option<CredentialFiles> {
        let PeerSettings { secret_file, cert, ca, crl, name, listen: _, dial: _, has_foreign_ca: _ } =
            self.clone();
        let files = CredentialFiles { secret: secret_file, cert, ca, crl, name };
        (self.credentials() != PeerCredentials::None).then_some(files)
    }

    /// Returns where to listen for peers with these routes; `None` if peers cannot dial us.
    pub fn listener<'r>(&self, mut routes: impl Iterator<Item = &'r Route>) -> Option<Listen> {
        let (ip, port) = match self.listen {
            PeerListen::Off => return None,
            PeerListen::Default if self.credentials() == PeerCredentials::None => return None,
            PeerListen::Default => routes.any(is_dialled_by_peers).then_some((None, PEER_PORT))?,
            PeerListen::Addr { ip, port } => (ip, port),
        };
        Some(Listen::Inet { protocol: Protocol::Tcp, ip, ports: PortRange::single(port) })
    }

    /// Returns the port that is, or may be, listened on for peers.
    pub fn port(&self) -> Option<u16> {
        match self.listen {
            PeerListen::Off => None,
            _ if self.credentials() == PeerCredentials::None => None,
            PeerListen::Default => Some(PEER_PORT),
            PeerListen::Addr { port, .. } => Some(port),
        }
    }

    /// Returns a mistake for each of these routes that listens where peers dial us.
    pub(super) fn overlaps<'r>(&self, routes: impl Iterator<Item = &'r Route> + Clone) -> Vec<Diagnostic> {
        // Port 0 selects another free port for each.
        let listen = self.listener(routes.clone()).filter(|listen| listen.first_port() != Some(0));
        let Some(listen) = listen else { return Vec::new() };
        let overlapping = routes.filter(|route| route.listen.overlaps(&listen));
        let mistake = |route: &Route| {
            Mistake::new(format!(
                "`{}` overlaps the address on which peers dial this ambassador",
                route.listen
            ))
            .help("use another port, or move the other with `--peer-listen`")
            .at(&route.origin)
        };
        overlapping.map(mistake).collect()
    }

    /// Returns why these settings do not permit the route.
    pub fn refusal(&self, route: &Route) -> Option<Mistake> {
        let part = peer_part(route)?;
        if self.credentials() == PeerCredentials::None {
            return Some(no_credentials(&part));
        }
        self.refused_option(route, &part).or_else(|| self.unreachable(route))
    }

    /// Returns the mistakes of [`PeerSettings::refusal`] in these routes.
    pub fn refusals<'r>(&self, routes: impl IntoIterator<Item = &'r Route>) -> Vec<Diagnostic> {
        let refused = |route: &Route| Some(self.refusal(route)?.at(&route.origin));
        routes.into_iter().filter_map(refused).collect()
    }

    fn refused_option(&self, Route { listen, options, .. }: &Route, part: &str) -> Option<Mistake> {
        if !matches!(listen, Listen::Peer { .. }) {
            return None;
        }
        match (self.credentials(), options.peers.is_empty()) {
            (PeerCredentials::Secret, false) => Some(
                Mistake::new(format!(
                    "`peers` of {part} cannot be checked: with a shared secret, names are self-asserted"
                ))
                .help("remove it, or use certificates: `--peer-cert FILE` and `--peer-ca FILE`"),
            ),
            (PeerCredentials::Files, true) if self.has_foreign_ca => Some(
                Mistake::new(format!("missing `peers` of {part}: the CA was not created by `ambassador ca`"))
                    .help("name the identities that may use it, as in `peers=spiffe://example.com/web`"),
            ),
            _ => None,
        }
    }

    /// Returns a mistake if the peers that the route needs cannot dial us.
    fn unreachable(&self, route: &Route) -> Option<Mistake> {
        if self.listen != PeerListen::Off {
            return None;
        }
        if let Some(target) = route.all_targets().find(|target| is_reverse(target)) {
            let message = format!("no peer can dial us for `{target}`: `peer-listen` is off");
            return Some(
                Mistake::new(message).help("set `--peer-listen`, or dial the peer: `peer://HOST/NAME`"),
            );
        }
        let is_export = matches!(route.listen, Listen::Peer { .. });
        (is_export && self.dial.is_empty()).then(|| {
            Mistake::new(format!("no peer can use `{}`: `peer-listen` is off", route.listen))
                .help("set `--peer-listen`, or dial the peers that use it: `--peer-dial HOST`")
        })
    }

    /// Returns the mistakes in combinations of these settings. `place` returns where a setting was written.
    pub(super) fn mistakes(&self, place: impl Fn(&str) -> Place) -> Vec<Diagnostic> {
        let PeerSettings { listen, dial, secret_file, cert, ca, crl, name, has_foreign_ca: _ } = self;
        let is_listening = matches!(listen, PeerListen::Addr { .. });
        let has_secret = secret_file.is_some();
        let files = [("peer-cert", cert.is_some()), ("peer-ca", ca.is_some()), ("peer-crl", crl.is_some())];
        let given = |(name, is_given): (&'static str, bool)| is_given.then_some(name);
        let mut mistakes = Vec::new();
        let mut add = |name: &str, mistake: Mistake| mistakes.push(mistake.at(&place(name)));
        if has_secret {
            files.into_iter().filter_map(given).for_each(|name| add(name, beside_secret(name)));
        } else {
            match (cert, ca) {
                (Some(_), None) => add("peer-cert", needs("peer-cert", "peer-ca")),
                (None, Some(_)) => add("peer-ca", needs("peer-ca", "peer-cert")),
                (None, None) if crl.is_some() => add("peer-crl", needs("peer-crl", "peer-ca")),
                _ => {}
            }
            if cert.is_some() && name.is_some() {
                add("peer-name", beside_cert());
            }
        }
        if !has_secret && cert.is_none() && ca.is_none() {
            let needed = [("peer-listen", is_listening), ("peer-dial", !dial.is_empty())];
            for name in needed.into_iter().filter_map(given) {
                add(name, no_credentials(&format!("`{name}`")));
            }
        }
        mistakes
    }
}

/// Returns the part of a route that needs peers, in backquotes.
fn peer_part(route: &Route) -> Option<String> {
    if matches!(route.listen, Listen::Peer { .. }) {
        return Some(format!("`{}`", route.listen));
    }
    let target = route.all_targets().find(|target| matches!(target, Target::Peer(_)))?;
    Some(format!("`{target}`"))
}

fn is_dialled_by_peers(route: &Route) -> bool {
    matches!(route.listen, Listen::Peer { .. }) || route.all_targets().any(is_reverse)
}

fn is_reverse(target: &Target) -> bool {
    matches!(target, Target::Peer(PeerTarget { host: PeerHost::Identity(_), .. }))
}

fn no_credentials(part: &str) -> Mistake {
    Mistake::new(format!("{part} needs credentials for peers")).help(
        "set `--peer-secret-file FILE` (`ambassador peer secret` creates a secret), or `--peer-cert FILE` and `--peer-ca FILE`",
    )
}

fn beside_secret(name: &str) -> Mistake {
    Mistake::new(format!("`{name}` cannot be combined with `peer-secret-file`"))
        .help("use either a shared secret or certificates")
}

fn beside_cert() -> Mistake {
    Mistake::new("`peer-name` cannot be combined with `peer-cert`")
        .help("remove it: the name is that in the certificate")
}

fn needs(name: &str, other: &str) -> Mistake {
    Mistake::new(format!("`{name}` needs `{other}`")).help(format!("set `--{other} FILE` as well"))
}

/// Displays the value in the syntax of `--peer-listen`.
impl fmt::Display for PeerListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerListen::Default => write!(f, ":{PEER_PORT}"),
            PeerListen::Off => f.write_str("off"),
            PeerListen::Addr { ip: None, port } => write!(f, ":{port}"),
            PeerListen::Addr { ip: Some(IpAddr::V4(ip)), port } => write!(f, "{ip}:{port}"),
            PeerListen::Addr { ip: Some(IpAddr::V6(ip)), port } => write!(f, "[{ip}]:{port}"),
        }
    }
}

/// Displays the peer as `host:port`.
impl fmt::Display for PeerDial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerDial { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::grammar::parse_route;

    fn route(line: &str) -> Route {
        parse_route(line, &Place::Argument(1)).unwrap()
    }

    fn secret() -> PeerSettings {
        PeerSettings { secret_file: Some("/s".into()), ..PeerSettings::default() }
    }

    fn files() -> PeerSettings {
        PeerSettings { cert: Some("/c".into()), ca: Some("/a".into()), ..PeerSettings::default() }
    }

    fn mistakes(settings: &PeerSettings) -> Vec<String> {
        let place = |name: &str| Place::Flag(name.to_owned());
        settings.mistakes(place).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn settings_that_contradict_each_other_are_mistakes() {
        for settings in [PeerSettings::default(), secret(), files()] {
            assert_eq!(mistakes(&settings), [""; 0]);
        }
        let path = || Some(PathBuf::from("/x"));
        let dial = || vec![PeerDial { host: "hub".to_owned(), port: 15008 }];
        let named = |settings| PeerSettings { name: Some("web".to_owned()), ..settings };
        assert_eq!(mistakes(&named(secret())), [""; 0]);
        for (settings, expected) in [
            (PeerSettings { secret_file: path(), ..files() }, "--peer-cert: `peer-cert` cannot be combined"),
            (PeerSettings { crl: path(), ..secret() }, "--peer-crl: `peer-crl` cannot be combined"),
            (PeerSettings { ca: None, ..files() }, "--peer-cert: `peer-cert` needs `peer-ca`"),
            (PeerSettings { cert: None, ..files() }, "--peer-ca: `peer-ca` needs `peer-cert`"),
            (
                PeerSettings { crl: path(), ..PeerSettings::default() },
                "--peer-crl: `peer-crl` needs `peer-ca`",
            ),
            (named(files()), "--peer-name: `peer-name` cannot be combined with `peer-cert`"),
            (
                PeerSettings { dial: dial(), ..PeerSettings::default() },
                "--peer-dial: `peer-dial` needs credentials",
            ),
            (
                PeerSettings { listen: PeerListen::Addr { ip: None, port: 1 }, ..PeerSettings::default() },
                "--peer-listen: `peer-listen` needs credentials",
            ),
        ] {
            let found = mistakes(&settings);
            assert!(found[0].starts_with(expected) && found[0].contains("help: "), "{found:?}");
        }
    }

    #[test]
    fn a_route_with_peers_needs_credentials_and_a_way_for_peers_to_reach_us() {
        let off = |settings| PeerSettings { listen: PeerListen::Off, ..settings };
        let dials =
            PeerSettings { dial: vec![PeerDial { host: "hub".to_owned(), port: 15008 }], ..off(secret()) };
        let foreign = PeerSettings { has_foreign_ca: true, ..files() };
        let none = PeerSettings::default();
        for (settings, line, expected) in [
            (&none, "80=a", None),
            (&none, "peer:a=b:1", Some("`peer:a` needs credentials")),
            (&none, "80=a?backup=peer://b/c", Some("`peer://b/c` needs credentials")),
            (&secret(), "peer:a=b:1", None),
            (&secret(), "80=peer://b/c?identity=b", None),
            (&secret(), "peer:a=b:1?peers=web", Some("`peers` of `peer:a` cannot be checked")),
            (&files(), "peer:a=b:1?peers=web", None),
            (&files(), "peer:a=b:1", None),
            (&foreign, "peer:a=b:1", Some("missing `peers` of `peer:a`")),
            (&foreign, "peer:a=b:1?peers=web", None),
            (&foreign, "80=peer://b/c", None),
            (&off(secret()), "80=peer://b/c", None),
            (&off(secret()), "peer:a=b:1", Some("no peer can use `peer:a`")),
            (&off(secret()), "80=peer://@b/c", Some("no peer can dial us for `peer://@b/c`")),
            (&dials, "peer:a=b:1", None),
            (&dials, "80=peer://@b/c", Some("no peer can dial us")),
        ] {
            let found = settings.refusal(&route(line));
            match expected {
                None => assert_eq!(found, None, "{line}"),
                Some(expected) => {
                    let Mistake { message, help } = found.expect(line);
                    assert!(message.contains(expected) && help.is_some(), "{line}: {message}");
                }
            }
        }
    }

    #[test]
    fn peers_are_listened_for_if_a_route_needs_it_or_an_address_is_set() {
        let shown = |settings: &PeerSettings, lines: &[&str]| {
            let routes: Vec<Route> = lines.iter().map(|line| route(line)).collect();
            settings.listener(routes.iter()).map(|listen| listen.to_string())
        };
        let at = |listen| PeerSettings { listen, ..secret() };
        assert_eq!(shown(&secret(), &["80=a", "81=peer://b/c"]), None);
        assert_eq!(shown(&secret(), &["80=a", "peer:a=b:1"]).as_deref(), Some("15008"));
        assert_eq!(shown(&secret(), &["80=peer://@laptop/c"]).as_deref(), Some("15008"));
        assert_eq!(shown(&PeerSettings::default(), &["peer:a=b:1"]), None);
        assert_eq!(shown(&at(PeerListen::Off), &["peer:a=b:1"]), None);
        let addr = PeerListen::Addr { ip: Some("10.0.0.1".parse().unwrap()), port: 1 };
        assert_eq!(shown(&at(addr), &[]).as_deref(), Some("10.0.0.1:1"));
    }
}
