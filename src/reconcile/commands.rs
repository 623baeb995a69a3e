//! CommandSender carried out: checked against what runs, written into the overrides, applied at once.

use std::time::Instant;

use super::command::{Command, CommandError, Done, Switch, Trial};
use super::overrides::{Override, TooMany};
use super::trial::RolledBack;
use super::{Reconciler, Running};
use crate::address::{EndpointKey, Identity};
use crate::cluster::Members;
use crate::config::grammar::{parse_route, target};
use crate::diagnostic::Place;
use crate::events::EventKind;
use crate::route::{Route, Target};

impl From<TooMany> for CommandError {
    fn from(TooMany: TooMany) -> CommandError {
        CommandError::Conflict("there are too many overrides already: take some back".to_owned())
    }
}

impl Reconciler {
    /// Carries out one command, whole or not at all.
    pub(super) async fn execute(&mut self, command: Command) -> Result<Done, CommandError> {
        if self.workers.is_none() {
            return Err(CommandError::Unavailable("the ambassador is stopping"));
        }
        let done = match command {
            Command::Pause { route } => self.pause(&route)?,
            Command::Resume { route } => self.resume(&route)?,
            Command::Switch(switch) => self.switch(&switch)?,
            Command::Weight { route, endpoint, weight } => self.weight(&route, &endpoint, weight)?,
            Command::Drain { route, endpoint } => self.drain(&route, &endpoint)?,
            Command::Undrain { route, endpoint } => self.undrain(&route, &endpoint)?,
            Command::Add { line } => return self.add(&line).await,
            Command::Remove { route } => self.remove(&route)?,
        };
        self.apply_and_note().await;
        Ok(done)
    }

    fn pause(&mut self, name: &str) -> Result<Done, CommandError> {
        let route = self.named(name)?.options.name.clone();
        if self.overrides.is_paused(&route) {
            return Ok(done(route, "is paused already"));
        }
        self.overrides.change(&route, |change| change.paused = true)?;
        self.events.emit(EventKind::Paused { route: route.clone() });
        Ok(done(route, "is paused: new sessions are held until `resume`"))
    }

    fn resume(&mut self, name: &str) -> Result<Done, CommandError> {
        let route = self.named(name)?.options.name.clone();
        if !self.overrides.is_paused(&route) {
            return Ok(done(route, "is not paused"));
        }
        self.overrides.change(&route, |change| change.paused = false)?;
        self.events.emit(EventKind::Resumed { route: route.clone() });
        Ok(done(route, "takes sessions again"))
    }

    fn switch(&mut self, Switch { route, targets, old, trial }: &Switch) -> Result<Done, CommandError> {
        let told = self.told_named(route)?;
        let (name, before) = (told.options.name.clone(), told.targets.clone());
        let policy = old.unwrap_or(told.options.on_remove);
        let to = match targets {
            Some(text) => Some(parse_targets(text, told)?),
            None => None,
        };
        let back_to = self.overrides.of(&name).and_then(|change| change.targets.clone());
        let instead_of = list(back_to.as_ref().unwrap_or(&before));
        let now_to = list(to.as_ref().unwrap_or(&before));
        self.overrides.change(&name, |change| change.targets.clone_from(&to))?;
        self.proofs.forget(&name);
        match trial {
            None => self.trials.keep(&name),
            Some(Trial { timeout }) => {
                let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                self.trials.begin(&name, deadline, back_to);
            }
        }
        if let Some(running) = self.table.values().find(|route| route.options.name == name) {
            self.moves.begin(running, policy);
        }
        let (happened, message) = match to {
            Some(_) => (
                EventKind::Switched { route: name.clone(), targets: now_to.clone(), instead_of },
                match trial {
                    Some(_) => format!("is on trial with {now_to}: each must answer before it is used"),
                    None => format!(
                        "is switched to {now_to}, until the next restart or `switch --reset`; \
                         not checked whether that answers (`--wait` does)"
                    ),
                },
            ),
            None => (
                EventKind::SwitchReset { route: name.clone(), targets: now_to.clone() },
                format!("goes to {now_to} again"),
            ),
        };
        self.events.emit(happened);
        Ok(done(name, &message))
    }

    /// Takes back the switches whose time has passed. Returns whether a trial has ended.
    pub(super) fn judge_switches(&mut self) -> bool {
        let on_trial = self.trials.count();
        let (moves, running, proofs) = (&self.moves, &self.running, &self.proofs);
        let unsettled = |name: &str| {
            let of_name = |running: &&Running| running.cluster.members().options.name == name;
            let Some(running) = running.values().find(of_name) else {
                return Some("the route is not open".to_owned());
            };
            let missing = || moves.of(name).map(|_| running.without_endpoint());
            proofs.missing(name).or_else(missing).or_else(|| running.unsettled())
        };
        for RolledBack { route: name, back_to, why } in self.trials.judge(Instant::now(), unsettled) {
            let targets = back_to.as_ref().map_or_else(|| "those told".to_owned(), |to| list(to));
            self.events.emit(EventKind::SwitchRolledBack { route: name.clone(), targets, why });
            if let Some(running) = self.table.values().find(|route| route.options.name == name) {
                self.moves.begin(running, running.options.on_remove);
            }
            // It takes no more room than what was there a moment ago.
            let _ = self.overrides.change(&name, |change| change.targets = back_to);
        }
        let table = &self.table;
        self.trials.retain(|name| table.values().any(|route| route.options.name == name));
        self.trials.count() < on_trial
    }

    fn weight(&mut self, route: &str, endpoint: &str, weight: Option<u32>) -> Result<Done, CommandError> {
        let (route, key) = self.endpoint_of(route, endpoint)?;
        self.overrides.change(&route, |change| {
            match weight {
                Some(weight) => change.weights.insert(key.clone(), weight),
                None => change.weights.remove(&key),
            };
        })?;
        let weight = weight.unwrap_or_else(|| self.weight_of(&route, &key));
        let endpoint = key.to_string();
        self.events.emit(EventKind::EndpointWeighted { route: route.clone(), endpoint, weight });
        Ok(done(route, &format!("gives {key} the weight {weight}")))
    }

    /// By its source.
    fn weight_of(&self, route: &str, key: &EndpointKey) -> u32 {
        let route = self.table.values().find(|found| found.options.name == route);
        let endpoints = route.map(|route| self.discovery.resolve(route).endpoints).unwrap_or_default();
        endpoints.iter().find(|endpoint| endpoint.key == *key).map_or(1, |endpoint| endpoint.weight)
    }

    fn drain(&mut self, route: &str, endpoint: &str) -> Result<Done, CommandError> {
        let (route, key) = self.endpoint_of(route, endpoint)?;
        self.overrides.change(&route, |change| {
            change.drained.insert(key.clone());
        })?;
        self.events.emit(EventKind::EndpointDrained { route: route.clone(), endpoint: key.to_string() });
        Ok(done(route, &format!("has no new sessions for {key}")))
    }

    fn undrain(&mut self, route: &str, endpoint: &str) -> Result<Done, CommandError> {
        let (route, key) = self.endpoint_of(route, endpoint)?;
        self.overrides.change(&route, |change: &mut Override| {
            change.drained.remove(&key);
        })?;
        self.events.emit(EventKind::EndpointUndrained { route: route.clone(), endpoint: key.to_string() });
        Ok(done(route, &format!("has new sessions for {key} again")))
    }

    /// Open, or not added at all.
    async fn add(&mut self, line: &str) -> Result<Done, CommandError> {
        let route = parse_route(line, &Place::Operator).map_err(CommandError::Mistaken)?;
        if let Some(other) = self.table.values().find(|other| other.excludes(&route)) {
            let (name, origin) = (&other.options.name, &other.origin);
            return Err(CommandError::Conflict(format!(
                "route `{name}` ({origin}) has this listener or this name"
            )));
        }
        let (name, listen) = (route.options.name.clone(), route.listen.clone());
        self.overrides.add(route.clone())?;
        let failed = self.apply().await;
        if self.unbound.contains_key(&listen) {
            self.overrides.added.retain(|added| added.options.name != name);
            self.apply_and_note().await;
            let why: Vec<String> = failed.iter().map(|(_, error)| error.to_string()).collect();
            return Err(CommandError::NotBound(why.join("; ")));
        }
        self.events.emit(EventKind::RouteAdded { route: name.clone(), line: route.to_string() });
        Ok(done(name, "is open, until the next restart"))
    }

    fn remove(&mut self, name: &str) -> Result<Done, CommandError> {
        let name = self.named(name)?.options.name.clone();
        self.overrides.remove(&name)?;
        self.events.emit(EventKind::RouteRemoved { route: name.clone() });
        Ok(done(name, "is closed, until the next restart; its sessions go as `on-remove` says"))
    }

    fn named(&self, name: &str) -> Result<&Route, CommandError> {
        self.table.values().find(|route| route.options.name == name).ok_or_else(|| self.unknown(name))
    }

    /// As the sources have it.
    fn told_named(&self, name: &str) -> Result<&Route, CommandError> {
        self.told.values().find(|route| route.options.name == name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> CommandError {
        let known = self.table.values().map(|route| route.options.name.clone()).collect();
        CommandError::Unknown { what: "route", name: name.to_owned(), known }
    }

    fn endpoint_of(&self, route: &str, endpoint: &str) -> Result<(String, EndpointKey), CommandError> {
        let route = self.named(route)?;
        let members = self.running.get(&route.listen).map(|running| running.cluster.members_arc());
        let key =
            members.as_deref().map_or_else(|| unknown_endpoint(endpoint, &[]), |m| find(m, endpoint))?;
        Ok((route.options.name.clone(), key))
    }
}

fn done(route: String, what: &str) -> Done {
    Done { message: format!("route {route} {what}"), route }
}

pub(super) fn list(targets: &[Target]) -> String {
    targets.iter().map(Target::to_string).collect::<Vec<_>>().join(",")
}

fn parse_targets(text: &str, route: &Route) -> Result<Vec<Target>, CommandError> {
    target::parse_list(text, &route.listen).map_err(|mistakes| {
        CommandError::Mistaken(mistakes.into_iter().map(|mistake| mistake.at(&Place::Operator)).collect())
    })
}

/// By address, by container name or the beginning of its ID, or as `status` describes it. It must be one.
fn find(members: &Members, text: &str) -> Result<EndpointKey, CommandError> {
    let keys: Vec<&EndpointKey> = members.all().map(|(_, member)| &member.endpoint.key).collect();
    let found: Vec<&EndpointKey> = keys.iter().copied().filter(|key| is_meant(key, text)).collect();
    match found.as_slice() {
        [key] => Ok((*key).clone()),
        [] => unknown_endpoint(text, &keys),
        several => Err(CommandError::Conflict(format!(
            "`{text}` means {} endpoints: {}",
            several.len(),
            several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ))),
    }
}

fn unknown_endpoint(text: &str, keys: &[&EndpointKey]) -> Result<EndpointKey, CommandError> {
    let known = keys.iter().map(ToString::to_string).collect();
    Err(CommandError::Unknown { what: "endpoint", name: text.to_owned(), known })
}

/// The beginning of an ID is as long as Docker prints it, at least.
fn is_meant(key: &EndpointKey, text: &str) -> bool {
    let is_container = match &key.identity {
        Identity::Container { id, name } => name == text || (text.len() >= 12 && id.starts_with(text)),
        _ => false,
    };
    is_container || key.addr.to_string() == text || key.to_string() == text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::EndpointAddr;

    #[test]
    fn an_endpoint_is_meant_by_its_address_its_container_or_all_of_it() {
        let id = "0123456789abcdef".to_owned();
        let addr = EndpointAddr::Inet(([10, 0, 0, 1], 80).into());
        let key = EndpointKey { addr, identity: Identity::Container { id, name: "web-1".to_owned() } };
        for text in ["10.0.0.1:80", "web-1", "0123456789ab", "10.0.0.1:80 (container web-1 0123456789ab)"] {
            assert!(is_meant(&key, text), "{text}");
        }
        for text in ["10.0.0.1", "web", "0123", "", "0123456789ac"] {
            assert!(!is_meant(&key, text), "{text}");
        }
    }
}
