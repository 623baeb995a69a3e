//! The options after the `?`: `option=value[&...]`. Pure.

mod values;

use std::time::Duration;

use super::{peer, target};
use crate::config::suggest::suggest;
use crate::diagnostic::Mistake;
use crate::route::{Balance, LABEL_HOLD_MAX, Listen, OnRemove, OnUnhealthy, Options, ProxyVersion, Target};
pub(in crate::config) use values::certificate as certificate_name;
use values::{
    certificate, check, check_duration, checks, connect_timeout, file, half_close_timeout, identities, limit,
    networks, of_connections, optional_duration, peers, proxy_senders, proxy_tlv, proxy_version,
};
pub(crate) use values::{duration, duration_or_off, one_of};

/// The author of the text that is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Author {
    /// The author of a container's label, which may only affect the container's own ports.
    Label,
    /// The author of arguments, environment, file and commands.
    Operator,
}

/// One option of the grammar.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// A valid value, for help texts. An integer if the option takes one.
    example: &'static str,
    /// May be repeated; the values are concatenated.
    pub(crate) is_list: bool,
    /// The least trusted author that may set the option.
    author: Author,
}

/// Every option, in the order of the documentation. Options that name a target, or that affect which client address is
/// trusted, are reserved for the operator.
const KEYS: [Key; 33] = [
    one("name", "redis", Author::Label),
    one("balance", "round-robin", Author::Label),
    one("slow-start", "30s", Author::Label),
    list("backup", "host:port", Author::Operator),
    one("hold", "10s", Author::Label),
    one("connect-timeout", "3s", Author::Label),
    one("idle-timeout", "1h", Author::Label),
    one("half-close-timeout", "5m", Author::Label),
    one("max-duration", "8h", Author::Label),
    one("max-sessions", "1000", Author::Label),
    one("max-sessions-per-endpoint", "100", Author::Label),
    one("rate", "20", Author::Label),
    one("health", "tcp", Author::Label),
    one("health-interval", "5s", Author::Label),
    one("health-timeout", "2s", Author::Label),
    one("health-rise", "2", Author::Label),
    one("health-fall", "3", Author::Label),
    one("on-unhealthy", "drain", Author::Label),
    list("allow", "10.0.0.0/8", Author::Label),
    list("deny", "10.0.0.0/8", Author::Label),
    one("on-remove", "drain", Author::Label),
    one("identity", "web", Author::Operator),
    list("peers", "web", Author::Label),
    list("accept-proxy", "10.0.0.0/8", Author::Operator),
    one("send-proxy", "v2", Author::Operator),
    list("proxy-tlv", "ssl", Author::Operator),
    one("health-proxy", "off", Author::Operator),
    one("tls", "web", Author::Operator),
    list("tls-peers", "web", Author::Operator),
    one("tls-ca", "/etc/ambassador/clients.pem", Author::Operator),
    one("ca", "/etc/ambassador/ca.pem", Author::Operator),
    one("sni", "db.example.com", Author::Operator),
    one("cert", "web", Author::Operator),
];

/// Checks run on the control plane, and labels can open thousands of routes.
const LABEL_HEALTH_INTERVAL_MIN: Duration = Duration::from_secs(1);

impl Key {
    /// Returns whether the value is a whole number.
    pub(crate) fn is_integer(&self) -> bool {
        self.example.bytes().all(|byte| byte.is_ascii_digit())
    }
}

const fn one(name: &'static str, example: &'static str, author: Author) -> Key {
    Key { name, example, is_list: false, author }
}

const fn list(name: &'static str, example: &'static str, author: Author) -> Key {
    Key { name, example, is_list: true, author }
}

/// Returns the option of this name.
pub(crate) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Returns the names of all options.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// Parses the pairs into `options`. Returns every mistake.
pub(super) fn parse_into(options: &mut Options, text: &str, listen: &Listen, author: Author) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut seen = Vec::new();
    for pair in text.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = key(name);
        if seen.contains(&name) && !key.is_some_and(|key| key.is_list) {
            mistakes.push(Mistake::new(format!("duplicate option `{name}`")).help("keep one of the two"));
        } else if key.is_some_and(|key| author < key.author) {
            mistakes.push(not_for_labels(name));
        } else if let Err(wrong) = set(options, name, value, listen) {
            mistakes.extend(wrong);
        } else if author == Author::Label {
            mistakes.extend(exceeds_label_limit(options, name, value));
        }
        seen.push(name);
    }
    mistakes
}

fn not_for_labels(name: &str) -> Mistake {
    Mistake::new(format!("a label cannot set `{name}`: it may only affect its own container"))
        .help(format!("remove it, or configure the route elsewhere: `LISTEN=docker://NAME?{name}=...`"))
}

/// Returns a mistake if the option exceeds the resources that a label may claim.
fn exceeds_label_limit(options: &Options, name: &str, value: &str) -> Option<Mistake> {
    let (exceeds_limit, help) = match name {
        "hold" => (options.hold > LABEL_HOLD_MAX, "`hold=1m` or less"),
        "health-interval" => {
            (options.health.interval < LABEL_HEALTH_INTERVAL_MIN, "`health-interval=1s` or more")
        }
        _ => return None,
    };
    exceeds_limit.then(|| {
        Mistake::new(format!("a label cannot set `{name}={value}`"))
            .help(format!("write {help}, or configure the route elsewhere: `LISTEN=docker://NAME`"))
    })
}

/// Sets one option. `value` has the syntax of the route grammar, also for a value of the file.
pub(crate) fn set(
    options: &mut Options,
    name: &str,
    value: &str,
    listen: &Listen,
) -> Result<(), Vec<Mistake>> {
    if let Some(Key { example, .. }) = key(name).filter(|_| value.is_empty()) {
        let help = format!("write `{name}={example}`");
        return Err(Mistake::new(format!("missing value of `{name}`")).help(help).into());
    }
    match name {
        "name" => options.name = values::name(value)?,
        "balance" => options.balance = one_of(name, value, Balance::ALL, Balance::name)?,
        "slow-start" => options.slow_start = duration_or_off(value)?,
        "backup" => backup(&mut options.backup, value, listen)?,
        "hold" => options.hold = duration_or_off(value)?,
        "connect-timeout" => options.connect_timeout = connect_timeout(value)?,
        "idle-timeout" => options.idle_timeout = optional_duration(value)?,
        "half-close-timeout" => options.half_close_timeout = half_close_timeout(value)?,
        "max-duration" => options.max_duration = optional_duration(value)?,
        "max-sessions" => options.max_sessions = limit("sessions", value)?,
        "max-sessions-per-endpoint" => options.max_sessions_per_endpoint = limit("sessions", value)?,
        "rate" => options.rate = limit("sessions a second", value)?,
        "health" => options.health.check = check(value)?,
        "health-interval" => options.health.interval = check_duration(name, value)?,
        "health-timeout" => options.health.timeout = check_duration(name, value)?,
        "health-rise" => options.health.rise = checks(value)?,
        "health-fall" => options.health.fall = checks(value)?,
        "on-unhealthy" => options.on_unhealthy = one_of(name, value, OnUnhealthy::ALL, OnUnhealthy::name)?,
        "allow" => options.allow.extend(networks(name, value, listen)?),
        "deny" => options.deny.extend(networks(name, value, listen)?),
        "on-remove" => options.on_remove = one_of(name, value, OnRemove::ALL, OnRemove::name)?,
        "identity" => options.identity = Some(peer::identity(value)?),
        "peers" => options.peers.extend(peers(value, listen)?),
        "accept-proxy" => {
            of_connections(name, listen)?;
            options.accept_proxy.extend(proxy_senders(name, value, listen)?);
        }
        "send-proxy" => options.send_proxy = Some(proxy_version(name, value, listen)?),
        "proxy-tlv" => options.proxy_tlv.extend(proxy_tlv(name, value)?),
        "health-proxy" => options.health_proxy = one_of(name, value, ["on", "off"], |word| word)? == "on",
        "tls" => {
            of_connections(name, listen)?;
            options.tls = Some(certificate(value)?);
        }
        "tls-peers" => options.tls_peers.extend(identities(value)?),
        "tls-ca" => options.tls_ca = Some(file(name, value)?),
        "ca" => options.ca = Some(file(name, value)?),
        "sni" => options.sni = Some(target::host_name(value)?),
        "cert" => options.cert = Some(certificate(value)?),
        _ => return Err(unknown(name).into()),
    }
    Ok(())
}

/// Returns a mistake for each option that has no effect, with the name of the option.
pub(crate) fn without_effect(targets: &[Target], options: &Options) -> Vec<(&'static str, Mistake)> {
    let any = |is: fn(&Target) -> bool| targets.iter().chain(&options.backup).any(is);
    let needs_peer = "no target is a peer that is dialled";
    let peer_help = "write a target `peer://HOST/NAME`";
    let tls_help = "write a target `tls://HOST`";
    let needs_tls = "no target is reached over TLS";
    let is_v2 = options.send_proxy == Some(ProxyVersion::V2);
    let tls_help_of_listener = "add `tls=NAME`, the name of a certificate";
    [
        ("identity", options.identity.is_some() && !any(Target::may_dial_peers), needs_peer, peer_help),
        (
            "proxy-tlv",
            !options.proxy_tlv.is_empty() && !is_v2,
            "only version 2 has fields",
            "add `send-proxy=v2`",
        ),
        (
            "health-proxy",
            !options.health_proxy && options.send_proxy.is_none(),
            "no header is sent",
            "add `send-proxy=v2`",
        ),
        (
            "tls-peers",
            !options.tls_peers.is_empty() && options.tls.is_none(),
            "TLS is not terminated",
            tls_help_of_listener,
        ),
        (
            "tls-ca",
            options.tls_ca.is_some() && options.tls.is_none(),
            "TLS is not terminated",
            tls_help_of_listener,
        ),
        ("ca", options.ca.is_some() && !any(Target::may_dial_tls), needs_tls, tls_help),
        ("sni", options.sni.is_some() && !any(Target::may_dial_tls), needs_tls, tls_help),
        ("cert", options.cert.is_some() && !any(Target::may_dial_tls), needs_tls, tls_help),
    ]
    .into_iter()
    .filter(|(_, is_unused, _, _)| *is_unused)
    .map(|(name, _, why, help)| {
        let mistake = Mistake::new(format!("`{name}` has no effect: {why}"));
        (name, mistake.help(format!("remove it, or {help}")))
    })
    .collect()
}

fn unknown(key: &str) -> Mistake {
    if key.is_empty() {
        return Mistake::new("missing option").help("write `option=value`, joined by `&`");
    }
    let mistake = Mistake::new(format!("unknown option `{key}`"));
    match key {
        "tag" | "tags" | "dc" | "datacenter" => {
            mistake.help("write it in the target: `consul://SERVICE+TAG@DATACENTER`")
        }
        key if key.contains('?') => mistake.help("join options with `&`"),
        key => mistake.help(suggest(key, &names().collect::<Vec<_>>())),
    }
}

fn backup(backups: &mut Vec<Target>, text: &str, listen: &Listen) -> Result<(), Vec<Mistake>> {
    for target in target::parse_list(text, listen)? {
        if !backups.contains(&target) {
            backups.push(target);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
