//! `etcd://HOST[:2379][,HOST...]/PREFIX`, and `etcds://` for TLS. Pure.
//!
//! The commas between the members are those that etcd's own tools take (`ETCDCTL_ENDPOINTS`), though targets are
//! separated by commas too. Nothing is ambiguous: an etcd target is not complete before its prefix, and no host has a
//! slash in it, so the first slash after the scheme ends the members.

use super::{at, split_port};
use crate::diagnostic::Mistake;
use crate::route::EtcdKeys;

const SCHEMES: [(&str, bool); 2] = [("etcd://", false), ("etcds://", true)];

/// Where etcd listens (IANA).
const PORT: u16 = 2379;

/// The length of a list's first word, where that is an etcd target.
pub(super) fn word(list: &str) -> Option<usize> {
    let (rest, _) = after_scheme(list)?;
    let scheme = list.len() - rest.len();
    let members = rest.find('/').unwrap_or(rest.len());
    let prefix = rest.get(members..).unwrap_or_default();
    Some(scheme + members + prefix.find(',').unwrap_or(prefix.len()))
}

/// `None` for what is no etcd target.
pub(crate) fn parse(text: &str) -> Option<Result<EtcdKeys, Mistake>> {
    let (rest, tls) = after_scheme(text)?;
    Some(keys(rest, tls))
}

/// Where entries are written: as a target, but for the prefix, which may be left out.
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

/// The members of a cluster, `host:port` each, each once.
pub(crate) fn members(text: &str) -> Result<Vec<String>, Mistake> {
    if text.contains('@') {
        // Not repeated: a password may stand there.
        return Err(Mistake::new("an etcd target names no user").help(
            "set AMBASSADOR_ETCD_USER and AMBASSADOR_ETCD_PASSWORD, which nobody sees in a list of processes",
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

/// With a slash before it and none after it.
pub(crate) fn prefix(text: &str) -> Result<String, Mistake> {
    let prefix = text.trim_end_matches('/');
    if prefix.is_empty() {
        return Err(Mistake::new("an etcd target needs the prefix of its keys")
            .help("write it after the members, as in `etcd://HOST:2379/services/redis`"));
    }
    match prefix.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-/:@+~".contains(*c)) {
        Some(odd) => Err(Mistake::new(format!("`{prefix}` is no prefix of keys: it holds {odd:?}"))
            .help("a prefix has letters, digits and `._-/:@+~`")),
        None => Ok(prefix.to_owned()),
    }
}
