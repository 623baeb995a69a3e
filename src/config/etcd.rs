//! The credentials for etcd: user, password and certificates. Read only from the environment, which is not visible in
//! lists of processes or logs. Pure.

use std::fmt;
use std::path::PathBuf;

use super::hosts::Hosts;
use super::vars::Vars;
use crate::config::server::{ClientFiles, Server};
use crate::diagnostic::{Diagnostic, Place};

pub(super) const KEYS: [&str; 5] = ["etcd-user", "etcd-password", "etcd-ca", "etcd-cert", "etcd-key"];

const USER: &str = "AMBASSADOR_ETCD_USER";
const PASSWORD: &str = "AMBASSADOR_ETCD_PASSWORD";
const CA: &str = "AMBASSADOR_ETCD_CA";
const CERT: &str = "AMBASSADOR_ETCD_CERT";
const KEY: &str = "AMBASSADOR_ETCD_KEY";

/// The CA certificates of the system, at the path of Debian, Alpine and most other distributions.
const CA_DEFAULT: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How etcd is accessed. The CA applies to every server; login and client certificate are sent only to `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdAccess {
    /// `None` if the variables of the user are not set: requests are sent without a token.
    pub login: Option<Login>,
    /// A file of CA certificates in PEM; by default those of the system.
    pub ca: PathBuf,
    /// `None` if no client certificate is configured.
    pub client: Option<ClientFiles>,
    /// The members in routes of the command line, the environment and the file.
    pub hosts: Hosts,
}

/// A user and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name of an etcd user.
    pub user: String,
    /// In plain text; masked in `Debug`.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("password", &"***").finish()
    }
}

impl Default for EtcdAccess {
    fn default() -> EtcdAccess {
        EtcdAccess { login: None, ca: PathBuf::from(CA_DEFAULT), client: None, hosts: Hosts::default() }
    }
}

impl EtcdAccess {
    /// Returns how to connect to a member, `host:port`.
    pub fn server(&self, member: &str, tls: bool) -> Server {
        let address = member.to_owned();
        if !tls {
            return Server::Tcp(address);
        }
        let client = self.client.clone().filter(|_| self.hosts.has_etcd(tls, member));
        Server::Tls { address, ca: self.ca.clone(), client, verify: true }
    }

    /// Returns the login for a member, if it may be sent there.
    pub(crate) fn login(&self, member: &str, tls: bool) -> Option<&Login> {
        self.login.as_ref().filter(|_| self.hosts.has_etcd(tls, member))
    }

    /// Returns whether credentials are configured that are not sent to this member.
    pub(crate) fn is_withheld(&self, member: &str, tls: bool) -> bool {
        (self.login.is_some() || self.client.is_some()) && !self.hosts.has_etcd(tls, member)
    }
}

/// Reads the credentials. Both variables of a pair must be set.
pub(crate) fn access(vars: &Vars) -> Result<EtcdAccess, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let login = pair(vars, USER, PASSWORD, &mut mistakes);
    let client = pair(vars, CERT, KEY, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(EtcdAccess {
        login: login.map(|(user, password)| Login { user, password }),
        ca: PathBuf::from(vars.value(CA).unwrap_or(CA_DEFAULT)),
        client: client.map(|(cert, key)| ClientFiles { cert: cert.into(), key: key.into() }),
        hosts: Hosts::default(),
    })
}

fn pair(vars: &Vars, one: &str, other: &str, mistakes: &mut Vec<Diagnostic>) -> Option<(String, String)> {
    let (set, missing) = match (vars.value(one), vars.value(other)) {
        (Some(first), Some(second)) => return Some((first.to_owned(), second.to_owned())),
        (None, None) => return None,
        (Some(_), None) => (one, other),
        (None, Some(_)) => (other, one),
    };
    let mistake = Diagnostic::new(Place::Variable(set.to_owned()), format!("{missing} is required as well"));
    mistakes.push(mistake.help(format!("set {missing} too, or unset this variable")));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<EtcdAccess, Vec<Diagnostic>> {
        access(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn unset_variables_are_the_defaults() {
        assert_eq!(read(&[]), Ok(EtcdAccess::default()));
    }

    #[test]
    fn the_password_is_not_printed() {
        let access = read(&[(USER, "root"), (PASSWORD, "secret")]).unwrap();
        assert_eq!(access.login, Some(Login { user: "root".to_owned(), password: "secret".to_owned() }));
        assert!(!format!("{access:?}").contains("secret"));
    }

    #[test]
    fn one_variable_of_a_pair_is_a_mistake() {
        let mistakes = read(&[(USER, "root"), (KEY, "/k")]).unwrap_err();
        let shown: Vec<_> = mistakes.iter().map(Diagnostic::one_line).collect();
        assert!(
            shown[0].contains("variable AMBASSADOR_ETCD_USER") && shown[0].contains(PASSWORD),
            "{shown:?}"
        );
        assert!(shown[1].contains("variable AMBASSADOR_ETCD_KEY") && shown[1].contains(CERT), "{shown:?}");
    }

    #[test]
    fn tls_is_used_if_the_target_requires_it() {
        let hosts = Hosts::of_etcd(true, &["h:2379".to_owned()]);
        let access = EtcdAccess { hosts, ..read(&[(CA, "/ca"), (CERT, "/c"), (KEY, "/k")]).unwrap() };
        assert_eq!(access.server("h:2379", false), Server::Tcp("h:2379".to_owned()));
        let client = Some(ClientFiles { cert: "/c".into(), key: "/k".into() });
        let expected = Server::Tls { address: "h:2379".to_owned(), ca: "/ca".into(), client, verify: true };
        assert_eq!(access.server("h:2379", true), expected);
    }

    #[test]
    fn credentials_are_sent_only_to_their_hosts() {
        let read = read(&[(USER, "root"), (PASSWORD, "secret"), (CERT, "/c"), (KEY, "/k")]).unwrap();
        let access = EtcdAccess { hosts: Hosts::of_etcd(true, &["h:2379".to_owned()]), ..read };
        for (member, tls, given) in
            [("h:2379", true, true), ("h:2379", false, false), ("x:2379", true, false)]
        {
            assert_eq!(access.login(member, tls).is_some(), given, "{member} {tls}");
            assert_eq!(access.is_withheld(member, tls), !given, "{member} {tls}");
        }
        assert!(matches!(access.server("x:2379", true), Server::Tls { client: None, .. }));
        assert!(!EtcdAccess::default().is_withheld("x:2379", true), "no credentials");
    }
}
