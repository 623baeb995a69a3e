//! What stands after the `?`: `option=value[&...]`. Pure.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::target;
use crate::config::nearest::suggest;
use crate::diagnostic::Mistake;
use crate::route::{Balance, Listen, OnRemove, Options};

/// Every option there is, in the order of the documentation.
pub(crate) const KEYS: [&str; 14] = [
    "name",
    "balance",
    "slow-start",
    "backup",
    "hold",
    "connect-timeout",
    "idle-timeout",
    "half-close-timeout",
    "max-sessions",
    "health",
    "allow",
    "accept-proxy",
    "send-proxy",
    "on-remove",
];

/// Given several times, these add up.
pub(crate) const LISTS: [&str; 2] = ["backup", "allow"];

/// A name is a word of a URL's path, of a metric and of a log line. Every listener's text can be one.
const NAME_LENGTH_MAX: usize = 128;

/// Longer than any connection is worth waiting for; keeps sums of durations far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads the pairs into `options`; every mistake at once.
pub(super) fn parse_into(options: &mut Options, text: &str, listen: &Listen) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut seen = Vec::new();
    for pair in text.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&key) && !LISTS.contains(&key) {
            mistakes.push(Mistake::new(format!("`{key}` is given twice")).help("keep one of the two"));
        } else if let Err(wrong) = set(options, key, value, listen) {
            mistakes.extend(wrong);
        }
        seen.push(key);
    }
    mistakes
}

/// Sets one option. `value` is as the line has it, whatever the file's type for it.
pub(crate) fn set(
    options: &mut Options,
    key: &str,
    value: &str,
    listen: &Listen,
) -> Result<(), Vec<Mistake>> {
    if value.is_empty() && KEYS.contains(&key) && key != "accept-proxy" {
        return Err(Mistake::new(format!("`{key}` has no value"))
            .help(format!("write `{}`", example(key)))
            .into());
    }
    match key {
        "name" => options.name = name(value)?,
        "balance" => options.balance = balance(value)?,
        "slow-start" => options.slow_start = slow_start(value)?,
        "backup" => backup(&mut options.backup, value, listen)?,
        "hold" => options.hold = hold(value)?,
        "connect-timeout" => options.connect_timeout = connect_timeout(value)?,
        "idle-timeout" => options.idle_timeout = idle_timeout(value)?,
        "half-close-timeout" => options.half_close_timeout = half_close_timeout(value)?,
        "max-sessions" => options.max_sessions = max_sessions(value)?,
        "allow" => options.allow.extend(allow(value, listen)?),
        "on-remove" => options.on_remove = on_remove(value)?,
        "health" => health(value)?,
        "accept-proxy" | "send-proxy" => return Err(later(key).into()),
        _ => return Err(unknown(key).into()),
    }
    Ok(())
}

fn unknown(key: &str) -> Mistake {
    if key.is_empty() {
        return Mistake::new("an option is missing").help("write `option=value`, joined by `&`");
    }
    let mistake = Mistake::new(format!("`{key}` is no option"));
    if key.contains('?') { mistake.help("join options with `&`") } else { mistake.help(suggest(key, &KEYS)) }
}

fn later(what: &str) -> Mistake {
    Mistake::new(format!("`{what}` is not in this version")).help("leave it out")
}

fn example(key: &str) -> &'static str {
    match key {
        "name" => "name=redis",
        "balance" => "balance=round-robin",
        "slow-start" => "slow-start=30s",
        "backup" => "backup=host:port",
        "hold" => "hold=10s",
        "connect-timeout" => "connect-timeout=3s",
        "idle-timeout" => "idle-timeout=1h",
        "half-close-timeout" => "half-close-timeout=5m",
        "max-sessions" => "max-sessions=1000",
        "allow" => "allow=10.0.0.0/8",
        "on-remove" => "on-remove=drain",
        _ => "option=value",
    }
}

fn name(text: &str) -> Result<String, Mistake> {
    let mistake = |what: &str| Mistake::new(format!("`{text}` cannot be a name: {what}"));
    if text.is_empty() {
        return Err(mistake("it is empty").help("write `name=redis`"));
    }
    if text.len() > NAME_LENGTH_MAX {
        return Err(mistake(&format!("it has more than {NAME_LENGTH_MAX} characters")).help("shorten it"));
    }
    match text.chars().find(|c| !is_name_char(*c)) {
        Some(odd) => Err(mistake(&format!("it holds {odd:?}")).help("use letters, digits and `._-/:[]@+~`")),
        None => Ok(text.to_owned()),
    }
}

/// A path's characters and those of an IPv6 listener.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-/:[]@+~".contains(c)
}

fn balance(text: &str) -> Result<Balance, Mistake> {
    one_of("balance", text, Balance::ALL, Balance::name)
}

fn slow_start(text: &str) -> Result<Duration, Mistake> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text) }
}

fn on_remove(text: &str) -> Result<OnRemove, Mistake> {
    one_of("on-remove", text, OnRemove::ALL, OnRemove::name)
}

fn one_of<T: Copy, const N: usize>(
    key: &str,
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, Mistake> {
    all.into_iter().find(|value| name(*value) == text).ok_or_else(|| {
        Mistake::new(format!("`{text}` is no value of `{key}`")).help(suggest(text, &all.map(name)))
    })
}

fn health(text: &str) -> Result<(), Mistake> {
    match text {
        "off" => Ok(()),
        "tcp" | "redis" => Err(later(&format!("health={text}"))),
        _ if text.starts_with("http:") => Err(later(&format!("health={text}"))),
        _ => {
            Err(Mistake::new(format!("`{text}` is no value of `health`"))
                .help("only `off` is in this version"))
        }
    }
}

fn backup(backups: &mut Vec<crate::route::Target>, text: &str, listen: &Listen) -> Result<(), Vec<Mistake>> {
    for target in target::parse_list(text, listen)? {
        if !backups.contains(&target) {
            backups.push(target);
        }
    }
    Ok(())
}

/// `off` says what `0` does: a session that finds no endpoint is refused at once.
fn hold(text: &str) -> Result<Duration, Mistake> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text) }
}

fn connect_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" || duration(text)?.is_zero() {
        return Err(Mistake::new(format!("`connect-timeout={text}` would never connect or never give up"))
            .help("write a duration such as `3s`"));
    }
    duration(text)
}

fn idle_timeout(text: &str) -> Result<Option<Duration>, Mistake> {
    if text == "off" { Ok(None) } else { Ok(Some(duration(text)?).filter(|idle| !idle.is_zero())) }
}

fn half_close_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return Err(Mistake::new("`half-close-timeout` cannot be off: a silent half would stay for ever")
            .help("write a long duration such as `24h`"));
    }
    duration(text)
}

fn max_sessions(text: &str) -> Result<Option<u32>, Mistake> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        _ if text == "off" => Ok(None),
        Ok(max) if digits && max > 0 => Ok(Some(max)),
        _ => Err(Mistake::new(format!("`{text}` is no number of sessions"))
            .help("write a whole number from 1 to 4294967295, or `off`")),
    }
}

fn allow(text: &str, listen: &Listen) -> Result<Vec<IpNet>, Vec<Mistake>> {
    if matches!(listen, Listen::Unix(_)) {
        return Err(Mistake::new("`allow` has no meaning for a unix socket, whose clients have no address")
            .help("set the permissions of the socket's directory")
            .into());
    }
    let (networks, mistakes): (Vec<_>, Vec<_>) = text.split(',').map(network).partition(Result::is_ok);
    if mistakes.is_empty() {
        return Ok(networks.into_iter().filter_map(Result::ok).collect());
    }
    Err(mistakes.into_iter().filter_map(Result::err).collect())
}

fn network(text: &str) -> Result<IpNet, Mistake> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| single()).map_err(|_| {
        Mistake::new(format!("`{text}` is no network"))
            .help("write an address or a network such as `10.0.0.0/8` or `fd00::/8`")
    })
}

/// `10s`, `500ms`, `1h30m`, `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, Mistake> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(
            Mistake::new(format!("`{text}` has no unit")).help(format!("write `{text}s` for seconds"))
        );
    }
    let duration = humantime::parse_duration(text).map_err(|_| {
        Mistake::new(format!("`{text}` is no duration"))
            .help("write for instance `10s`, `500ms`, `5m` or `1h30m`")
    })?;
    if duration > DURATION_MAX {
        return Err(Mistake::new(format!("`{text}` is more than a year")).help("write `365days` or less"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests;
