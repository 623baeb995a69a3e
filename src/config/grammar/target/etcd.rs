//! `etcd://HOST[:2379][,HOST...]/PREFIX`, and `etcds://` for TLS. Pure.
//!
//! Members are separated by commas, as in etcd's own tools (`ETCDCTL_ENDPOINTS`), although targets are as well. The grammar is
//! unambiguous: the prefix is required and no host contains a slash, so the first slash after the scheme ends the members.

use super::{at, split_port};
use crate::diagnostic::Mistake;
use crate::route::EtcdKeys;

const SCHEMES: [(&str, bool); 2] = [("etcd://", false), ("etcds://", true)];

/// The client port of etcd (IANA).
const PORT: u16 = 2379;

/// Returns the length of the first target of a list, if it is an etcd target.
pub(super) fn word(list: &str) -> Option<usize> {
    let (rest, _) = after_scheme(list)?;
    let scheme = list.len() - rest.len();
    let members = rest.find('/').unwrap_or(rest.len());
    let prefix = rest.get(members..).unwrap_or_default();
    Some(scheme + members + prefix.find(',').unwrap_or(prefix.len()))
}

/// Parses an etcd target. Returns `None` for another scheme.
pub(crate) fn parse(text: &str) -> Option<Result<EtcdKeys, Mistake>> {
    let (rest, tls) = after_scheme(text)?;
    Some(keys(rest, tls))
}

/// Parses the address of a registry: an etcd target, of which the prefix is optional.
pub(crate) fn registry(text: &str) -> Option<Result<EtcdKeys, Mistake>> {
    let (rest, tls) = after_scheme(text)?;
    let (members, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = if prefix.is_empty() { "services" } else { prefix };
    Some(keys(&format!("{members}/{prefix}"), tls))
}

fn after_scheme(text: &str) -> Option<(&str, bool)> {
    SCHEMES.into_iter().find_map(|(scheme, tls)| Some((text.strip_prefix(scheme)?, tls)))
}

fn keys(text: &str, tls: bool) -> Result<EtcdKeys, Mistake> {
    let (members, prefix) = match text.find('/') {
        Some(slash) => text.split_at(slash),
        None => (text, ""),
    };
    let members = self::members(members)?;
    Ok(EtcdKeys { tls, members, prefix: self::prefix(prefix)? })
}

/// Parses the members of a cluster. Returns each once, as `host:port`.
pub(crate) fn members(text: &str) -> Result<Vec<String>, Mistake> {
    if text.contains('@') {
        // The text is not printed: it may contain a password.
        return Err(Mistake::new("an etcd target cannot contain a user").help(
            "set AMBASSADOR_ETCD_USER and AMBASSADOR_ETCD_PASSWORD, which are not visible in the list of processes",
        ));
    }
    let mut members = Vec::new();
    for word in text.split(',') {
        let (host, port) = split_port(word)?;
        let member = at(host, port.unwrap_or(PORT))?.to_string();
        if !members.contains(&member) {
            members.push(member);
        }
    }
    Ok(members)
}

/// Parses a prefix. Returns it with a leading slash and without a trailing one.
pub(crate) fn prefix(text: &str) -> Result<String, Mistake> {
    let prefix = text.trim_end_matches('/');
    if prefix.is_empty() {
        return Err(Mistake::new("missing prefix of the keys in an etcd target")
            .help("write it after the members, as in `etcd://HOST:2379/services/redis`"));
    }
    match prefix.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-/:@+~".contains(*c)) {
        Some(odd) => Err(Mistake::new(format!("invalid prefix of keys `{prefix}`: it contains {odd:?}"))
            .help("use letters, digits and `._-/:@+~`")),
        None => Ok(prefix.to_owned()),
    }
}
