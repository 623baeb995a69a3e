//! What stands after the `?`: `option=value[&...]`. Pure.

mod values;

use super::target;
use crate::config::nearest::suggest;
use crate::diagnostic::Mistake;
use crate::route::{Balance, Listen, OnRemove, OnUnhealthy, Options};
pub(crate) use values::duration;
use values::{
    check, checks, connect_timeout, duration_or_off, half_close_timeout, name, networks, one_of, pace,
    some_duration, some_number,
};

/// Every option there is, in the order of the documentation.
pub(crate) const KEYS: [&str; 23] = [
    "name",
    "balance",
    "slow-start",
    "backup",
    "hold",
    "connect-timeout",
    "idle-timeout",
    "half-close-timeout",
    "max-duration",
    "max-sessions",
    "max-sessions-per-endpoint",
    "rate",
    "health",
    "health-interval",
    "health-timeout",
    "health-rise",
    "health-fall",
    "on-unhealthy",
    "allow",
    "deny",
    "accept-proxy",
    "send-proxy",
    "on-remove",
];

/// Given several times, these add up.
pub(crate) const LISTS: [&str; 3] = ["backup", "allow", "deny"];

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
        "balance" => options.balance = one_of(key, value, Balance::ALL, Balance::name)?,
        "slow-start" => options.slow_start = duration_or_off(value)?,
        "backup" => backup(&mut options.backup, value, listen)?,
        "hold" => options.hold = duration_or_off(value)?,
        "connect-timeout" => options.connect_timeout = connect_timeout(value)?,
        "idle-timeout" => options.idle_timeout = some_duration(value)?,
        "half-close-timeout" => options.half_close_timeout = half_close_timeout(value)?,
        "max-duration" => options.max_duration = some_duration(value)?,
        "max-sessions" => options.max_sessions = some_number("sessions", value)?,
        "max-sessions-per-endpoint" => options.max_sessions_per_endpoint = some_number("sessions", value)?,
        "rate" => options.rate = some_number("sessions a second", value)?,
        "health" => options.health.check = check(value)?,
        "health-interval" => options.health.interval = pace(key, value)?,
        "health-timeout" => options.health.timeout = pace(key, value)?,
        "health-rise" => options.health.rise = checks(value)?,
        "health-fall" => options.health.fall = checks(value)?,
        "on-unhealthy" => options.on_unhealthy = one_of(key, value, OnUnhealthy::ALL, OnUnhealthy::name)?,
        "allow" => options.allow.extend(networks(key, value, listen)?),
        "deny" => options.deny.extend(networks(key, value, listen)?),
        "on-remove" => options.on_remove = one_of(key, value, OnRemove::ALL, OnRemove::name)?,
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
    match key {
        "tag" | "tags" | "dc" | "datacenter" => {
            mistake.help("it belongs to the target: `consul://SERVICE+TAG@DATACENTER`")
        }
        key if key.contains('?') => mistake.help("join options with `&`"),
        key => mistake.help(suggest(key, &KEYS)),
    }
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
        "max-duration" => "max-duration=8h",
        "max-sessions" => "max-sessions=1000",
        "max-sessions-per-endpoint" => "max-sessions-per-endpoint=100",
        "rate" => "rate=20",
        "health" => "health=tcp",
        "health-interval" => "health-interval=5s",
        "health-timeout" => "health-timeout=2s",
        "health-rise" => "health-rise=2",
        "health-fall" => "health-fall=3",
        "on-unhealthy" => "on-unhealthy=drain",
        "allow" => "allow=10.0.0.0/8",
        "deny" => "deny=10.0.0.0/8",
        "on-remove" => "on-remove=drain",
        _ => "option=value",
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

#[cfg(test)]
mod tests;
