//! What a command does, in sentences for its operator, and the command that undoes it. Pure.
//!
//! Both follow from the difference between the route as it is and as the command leaves it, so that a dry run and the command
//! itself cannot differ. Each sentence is true before and after the command.

use std::fmt::Display;
use std::time::Duration;

use humantime::format_duration;

use super::command::{Command, SwitchRequest, Trial};
use super::desired::overrides::Override;
use crate::address::{BACKUP_TIER, EndpointKey, EndpointSpec};
use crate::diagnostic::Place;
use crate::route::{Check, Listen, OnRemove, Protocol, Route, Target};

/// Names in a list before the rest is a number.
const LISTED_MAX: usize = 3;

/// A route before and after a command.
#[derive(Debug)]
pub(super) struct Change {
    /// `None` if it is not in the table.
    pub(super) before: Option<Before>,
    pub(super) after: Option<After>,
    /// Of a switch.
    pub(super) trial: Option<Trial>,
    /// The sources that are followed because of the command.
    pub(super) followed: Vec<Target>,
    /// The sessions that may be held, over all routes.
    pub(super) max_held: usize,
}

/// A route before a command.
#[derive(Debug)]
pub(super) struct Before {
    /// The route as its source reports it.
    pub(super) source: Route,
    /// The route with the overrides.
    pub(super) route: Route,
    /// The targets whose endpoints are in use. Those of an earlier switch if the last one is pending.
    pub(super) serving: Vec<Target>,
    pub(super) change: Override,
    /// Sessions that are not held.
    pub(super) open: usize,
    pub(super) held: usize,
    pub(super) endpoints: Vec<Serving>,
}

/// An endpoint before a command.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) spec: EndpointSpec,
    pub(super) sessions: usize,
    /// Neither unhealthy nor ejected, and the last connect has not failed.
    pub(super) is_ok: bool,
}

/// A route after a command.
#[derive(Debug)]
pub(super) struct After {
    pub(super) route: Route,
    pub(super) change: Override,
    pub(super) endpoints: Vec<EndpointSpec>,
    pub(super) problems: Vec<String>,
    /// What happens to the sessions of removed endpoints.
    pub(super) on_remove: OnRemove,
    /// The endpoints are those from before a switch, because its targets have none yet.
    pub(super) is_pending: bool,
}

/// Returns what a command does, one sentence each.
pub(super) fn effects(change: &Change) -> Vec<String> {
    let effects = match (&change.before, &change.after) {
        (None, Some(after)) => change.opened(after),
        (Some(before), None) => closed(before),
        (Some(before), Some(after)) => change.changed(before, after),
        (None, None) => {
            vec!["no route opens now: no source has one of this name, or another has its listener".to_owned()]
        }
    };
    if effects.is_empty() { vec!["nothing changes".to_owned()] } else { effects }
}

/// Returns the command that brings back what was before. `None` if nothing changes.
pub(super) fn undo(change: &Change) -> Option<Command> {
    match (&change.before, &change.after) {
        (None, None) => None,
        (None, Some(after)) => Some(Command::Remove { route: name(&after.route) }),
        (Some(before), None) if before.source.origin == Place::Operator => {
            Some(Command::Add { line: before.source.to_string() })
        }
        (Some(before), None) => Some(Command::Restore { route: name(&before.route) }),
        (Some(before), Some(after)) => undo_change(name(&before.route), &before.change, &after.change),
    }
}

fn undo_change(route: String, before: &Override, after: &Override) -> Option<Command> {
    if before.paused != after.paused {
        return Some(if before.paused { Command::Pause { route } } else { Command::Resume { route } });
    }
    if before.targets != after.targets {
        let targets = before.targets.as_deref().map(|targets| joined(targets, ","));
        return Some(Command::Switch(SwitchRequest { route, targets, old: None, trial: None }));
    }
    if let Some(key) = before.drained.symmetric_difference(&after.drained).next() {
        let (was_drained, endpoint) = (before.drained.contains(key), key.to_string());
        return Some(match was_drained {
            true => Command::Drain { route, endpoint },
            false => Command::Undrain { route, endpoint },
        });
    }
    let key = weighted(before, after)?;
    let weight = before.weights.get(key).copied();
    Some(Command::Weight { route, endpoint: key.to_string(), weight })
}

/// Returns the endpoint whose weight was changed.
fn weighted<'o>(before: &'o Override, after: &'o Override) -> Option<&'o EndpointKey> {
    let mut keys = before.weights.keys().chain(after.weights.keys());
    keys.find(|key| before.weights.get(key) != after.weights.get(key))
}

impl Change {
    fn opened(&self, after: &After) -> Vec<String> {
        let mut effects = vec![match &after.route.listen {
            Listen::Peer { name, .. } => format!("peers can use {name}"),
            listen => format!("the listener {listen} opens{}", any_port(listen)),
        }];
        effects.extend(self.looked_up());
        effects.extend(self.problems(after));
        effects.push(new_sessions(after, &[]));
        effects
    }

    fn changed(&self, before: &Before, after: &After) -> Vec<String> {
        match (before.change.paused, after.change.paused) {
            (false, true) => return self.paused(before),
            (true, false) => return self.resumed(before, after),
            _ => {}
        }
        if before.change.targets != after.change.targets || self.trial.is_some() {
            return self.switched(before, after);
        }
        if let Some(key) = before.change.drained.symmetric_difference(&after.change.drained).next() {
            return match after.change.drained.contains(key) {
                true => stopped(before, after, key),
                false => undrained(before, after, key),
            };
        }
        weighted(&before.change, &after.change).map(|key| reweighted(before, after, key)).unwrap_or_default()
    }

    fn paused(&self, before: &Before) -> Vec<String> {
        let held = counted(before.held, "held session stays held", "held sessions stay held");
        let new =
            "new sessions are held until the route is resumed; `hold` does not run meanwhile".to_owned();
        let limit = format!(
            "at most {} sessions are held at a time, over all routes; further ones are reset (hold-full)",
            self.max_held
        );
        open_sessions(before.open, "", CONTINUE).into_iter().chain(held).chain([new, limit]).collect()
    }

    fn resumed(&self, before: &Before, after: &After) -> Vec<String> {
        let released = released(before).filter(|_| after.takers().next().is_some());
        let new = new_sessions(after, &before.endpoints);
        released.into_iter().chain([new]).chain(open_sessions(before.open, "", CONTINUE)).collect()
    }

    fn switched(&self, before: &Before, after: &After) -> Vec<String> {
        let (old, new) = (list(&before.serving), list(&after.route.targets));
        let mut effects: Vec<String> = self.looked_up().chain(self.problems(after)).collect();
        if after.is_pending {
            effects.push(format!("the previous targets ({old}) are used until {new} has an endpoint"));
        }
        effects.extend(self.trial_of(after));
        let can_serve = after.is_pending || after.takers().next().is_some();
        effects.push(match can_serve && !after.change.paused {
            true if old == new => format!("new sessions use {new}"),
            true => format!("new sessions use {new} instead of {old}"),
            false => new_sessions(after, &[]),
        });
        effects.extend(leaving(before, after));
        effects.extend(self.trial.and_then(|trial| trial.timeout).map(|timeout| {
            let (timeout, to) = (format_duration(timeout), list(&before.route.targets));
            format!(
                "the switch is rolled back to {to} if after {timeout} an endpoint has not answered, or an old one \
                 still has sessions"
            )
        }));
        effects
    }

    /// Returns whether the new endpoints are tested before they are used.
    fn trial_of(&self, after: &After) -> Option<String> {
        let test = match (&after.route.options.health.check, after.route.listen.protocol()) {
            (Check::Off, Protocol::Udp) => return None,
            (Check::Off, Protocol::Tcp) => "accept a connection",
            _ => "pass the health check",
        };
        Some(match self.trial {
            Some(_) => format!("each new endpoint must {test} first; until then the previous ones are used"),
            None => "whether the new endpoints answer is not checked first".to_owned(),
        })
    }

    fn looked_up(&self) -> impl Iterator<Item = String> {
        let sources = (!self.followed.is_empty()).then(|| list(&self.followed));
        sources.into_iter().map(|sources| format!("the endpoints of {sources} are looked up first"))
    }

    /// Returns why targets have no endpoint, unless they are about to be looked up.
    fn problems(&self, after: &After) -> Vec<String> {
        let count = if self.followed.is_empty() { LISTED_MAX } else { 0 };
        after.problems.iter().take(count).cloned().collect()
    }
}

impl Before {
    fn of(&self, key: &EndpointKey) -> Option<&Serving> {
        self.endpoints.iter().find(|serving| serving.spec.key == *key)
    }

    fn takers(&self) -> impl Iterator<Item = &Serving> {
        takers(&self.endpoints, |serving| &serving.spec)
    }
}

impl After {
    fn of(&self, key: &EndpointKey) -> Option<&EndpointSpec> {
        self.endpoints.iter().find(|endpoint| endpoint.key == *key)
    }

    fn takers(&self) -> impl Iterator<Item = &EndpointSpec> {
        takers(&self.endpoints, |endpoint| endpoint)
    }
}

/// Describes an endpoint that takes no more new sessions.
fn stopped(before: &Before, after: &After, key: &EndpointKey) -> Vec<String> {
    let sessions = before.of(key).map_or(0, |serving| serving.sessions);
    let open = open_sessions(sessions, &format!(" on {key}"), CONTINUE);
    let others = new_sessions(after, &before.endpoints);
    [format!("{key} takes no new sessions")].into_iter().chain(open).chain([others]).collect()
}

fn undrained(before: &Before, after: &After, key: &EndpointKey) -> Vec<String> {
    let weight = after.of(key).map_or(0, |endpoint| endpoint.weight);
    if weight == 0 {
        return vec![format!("{key} is no longer drained, but its weight is 0: it takes no new sessions")];
    }
    let share = share(after.takers(), key).map(|share| format!(", {share} of them")).unwrap_or_default();
    let mut effects = vec![format!("{key} takes new sessions again{share}")];
    let had_none = before.takers().next().is_none();
    effects.extend(released(before).filter(|_| had_none && !after.change.paused));
    effects.extend(still_paused(after));
    effects
}

fn reweighted(before: &Before, after: &After, key: &EndpointKey) -> Vec<String> {
    if after.change.drained.contains(key) {
        return vec![format!("{key} stays drained; the weight applies once it is not")];
    }
    let weight = |spec: Option<&EndpointSpec>| spec.map_or(0, |endpoint| endpoint.weight);
    let was = weight(before.of(key).map(|serving| &serving.spec));
    let is = weight(after.of(key));
    if is == 0 && was > 0 {
        return stopped(before, after, key);
    }
    let shares = (share(before.takers().map(|serving| &serving.spec), key), share(after.takers(), key));
    let mut effects = vec![match was == is {
        true => format!("the weight of {key} is still {is}"),
        false => format!("the weight of {key} is {is} instead of {was}"),
    }];
    if let (was, Some(is)) = shares
        && was.as_ref() != Some(&is)
    {
        let was = was.unwrap_or_else(|| "none".to_owned());
        effects.push(format!("{key} takes {is} of the new sessions instead of {was}"));
    }
    effects.extend(still_paused(after));
    effects
}

/// Returns where new sessions go. `before` are the endpoints whose state is known.
fn new_sessions(after: &After, before: &[Serving]) -> String {
    let hold = after.route.options.hold;
    if let Some(paused) = still_paused(after) {
        return paused;
    }
    let takers: Vec<&EndpointSpec> = after.takers().collect();
    let names = list(&takers.iter().map(|endpoint| &endpoint.key).collect::<Vec<_>>());
    let is_bad = |endpoint: &&EndpointSpec| {
        before.iter().any(|serving| serving.spec.key == endpoint.key && !serving.is_ok)
    };
    match takers.first() {
        None => without_endpoint(hold),
        Some(_) if takers.iter().all(is_bad) => match takers.len() {
            1 => format!("new sessions use {names}, which is unavailable now"),
            _ => format!("new sessions use {names}, which are all unavailable now"),
        },
        Some(first) if first.tier >= BACKUP_TIER => {
            format!("no endpoint of the targets takes sessions: new sessions use the backups, {names}")
        }
        Some(_) => format!("new sessions use {names}"),
    }
}

fn closed(before: &Before) -> Vec<String> {
    let Route { listen, options, origin, .. } = &before.route;
    let mut effects = vec![match listen {
        Listen::Peer { name, .. } => format!("peers can no longer use {name}"),
        listen => format!("the listener {listen} closes"),
    }];
    effects.extend(open_sessions(before.open, "", fate(options.on_remove, listen)));
    let (one, several) = ("held session ends", "held sessions end");
    let rest = format!(" as no-endpoint when `hold` has passed ({})", format_duration(options.hold));
    effects.extend(counted(before.held, one, several).map(|held| held + &rest));
    let is_changed = before.change != Override::default();
    let lasts = match (origin, is_changed) {
        (Place::Operator, false) => None,
        (Place::Operator, true) => Some("the manual changes of the route are discarded"),
        _ => Some("the route stays closed until it is restored, or until the next restart"),
    };
    effects.extend(lasts.map(str::to_owned));
    effects
}

/// Returns what happens to the sessions of the endpoints that a switch removes.
fn leaving(before: &Before, after: &After) -> Option<String> {
    let fate = fate(after.on_remove, &after.route.listen);
    if after.is_pending {
        let Fate { several, .. } = fate;
        return (before.open > 0).then(|| format!("the open sessions on replaced endpoints then {several}"));
    }
    let left: Vec<&Serving> =
        before.endpoints.iter().filter(|serving| after.of(&serving.spec.key).is_none()).collect();
    let sessions = left.iter().map(|serving| serving.sessions).sum();
    let names = list(&left.iter().map(|serving| &serving.spec.key).collect::<Vec<_>>());
    open_sessions(sessions, &format!(" on {names}"), fate)
}

/// What happens to open sessions: the verb, for one and for several.
#[derive(Clone, Copy)]
struct Fate {
    one: &'static str,
    several: &'static str,
}

const CONTINUE: Fate = Fate { one: "continues", several: "continue" };

/// Returns what happens to the sessions of a removed endpoint. UDP flows always end.
fn fate(on_remove: OnRemove, listen: &Listen) -> Fate {
    match (listen.protocol(), on_remove) {
        (Protocol::Udp, _) => Fate { one: "ends", several: "end" },
        (Protocol::Tcp, OnRemove::Cut) => Fate { one: "is reset", several: "are reset" },
        (Protocol::Tcp, OnRemove::Drain) => CONTINUE,
    }
}

fn open_sessions(count: usize, place: &str, Fate { one, several }: Fate) -> Option<String> {
    counted(count, &format!("open session{place} {one}"), &format!("open sessions{place} {several}"))
}

fn released(before: &Before) -> Option<String> {
    counted(before.held, "held session is connected first", "held sessions are connected first")
}

fn still_paused(after: &After) -> Option<String> {
    let text = "the route is paused: new sessions are held until it is resumed";
    after.change.paused.then(|| text.to_owned())
}

fn without_endpoint(hold: Duration) -> String {
    if hold.is_zero() {
        return "no endpoint takes sessions: new sessions are reset (no-endpoint)".to_owned();
    }
    let hold = format_duration(hold);
    format!("no endpoint takes sessions: new sessions are held up to {hold}, then reset (no-endpoint)")
}

/// Returns the endpoints that take new sessions: those of the lowest tier that has any. A higher tier is used only if they fail.
fn takers<E>(endpoints: &[E], spec: impl Fn(&E) -> &EndpointSpec + Copy) -> impl Iterator<Item = &E> {
    let takes = move |endpoint: &&E| spec(endpoint).weight > 0;
    let tier = endpoints.iter().filter(takes).map(|endpoint| spec(endpoint).tier).min();
    endpoints.iter().filter(takes).filter(move |endpoint| Some(spec(endpoint).tier) == tier)
}

/// Returns the share of an endpoint in the new sessions. `None` if it is not one of those that take them.
fn share<'e>(takers: impl Iterator<Item = &'e EndpointSpec>, key: &EndpointKey) -> Option<String> {
    let takers: Vec<&EndpointSpec> = takers.collect();
    let weight = u64::from(takers.iter().find(|endpoint| endpoint.key == *key)?.weight);
    let total: u64 = takers.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    Some(match takers.len() {
        1 => "all".to_owned(),
        _ => format!("about {} %", (weight * 100 + total / 2) / total.max(1)),
    })
}

fn any_port(listen: &Listen) -> &'static str {
    if listen.first_port() == Some(0) { " on a free port" } else { "" }
}

/// Returns `None` for zero.
fn counted(count: usize, one: &str, several: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { several }))
}

fn name(route: &Route) -> String {
    route.options.name.clone()
}

fn list<T: Display>(items: &[T]) -> String {
    match items.len().checked_sub(LISTED_MAX) {
        Some(more @ 1..) => {
            let shown = items.get(..LISTED_MAX).unwrap_or_default();
            format!("{} and {more} more", joined(shown, ", "))
        }
        _ => joined(items, ", "),
    }
}

fn joined<T: Display>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests;
