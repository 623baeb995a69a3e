//! Commands of the operator: checked, then written into the overrides. Pure.

use std::time::Instant;

use super::overrides::{Override, TooMany};
use super::switches::TrialTerms;
use super::{DesiredState, list};
use crate::address::{EndpointKey, Identity};
use crate::config::grammar::{parse_route, target};
use crate::diagnostic::Place;
use crate::events::EventKind;
use crate::reconcile::command::{Command, CommandError, SwitchRequest};
use crate::route::{Listen, Route, Target};
use crate::tls::Tls;

/// A command that was written into the overrides, and takes effect with the next update.
#[derive(Debug)]
pub(in crate::reconcile) struct Outcome {
    /// The name of the route.
    pub(in crate::reconcile) route: String,
    /// The endpoint of a command for one, as `status` shows it.
    pub(in crate::reconcile) endpoint: Option<String>,
    /// What was done, for people.
    pub(in crate::reconcile) message: String,
    /// `None` if nothing changed.
    pub(in crate::reconcile) event: Option<EventKind>,
    /// A listener that must be bound, or the command fails.
    pub(in crate::reconcile) must_bind: Option<Listen>,
}

impl Outcome {
    fn new(route: String, message: String, event: EventKind) -> Outcome {
        Outcome { route, endpoint: None, message, event: Some(event), must_bind: None }
    }

    fn unchanged(route: String, message: String) -> Outcome {
        Outcome { route, endpoint: None, message, event: None, must_bind: None }
    }

    fn of(self, endpoint: &EndpointKey) -> Outcome {
        Outcome { endpoint: Some(endpoint.to_string()), ..self }
    }
}

impl From<TooMany> for CommandError {
    fn from(TooMany: TooMany) -> CommandError {
        CommandError::Conflict("too many overrides: undo some of them first".to_owned())
    }
}

impl DesiredState {
    /// Executes one command, or changes nothing. `endpoints` returns the endpoints of an open route.
    pub(in crate::reconcile) fn execute(
        &mut self,
        command: &Command,
        endpoints: impl Fn(&Listen) -> Vec<EndpointKey>,
        now: Instant,
    ) -> Result<Outcome, CommandError> {
        match command {
            Command::Pause { route } => self.pause(route),
            Command::Resume { route } => self.resume(route),
            Command::Switch(request) => self.switch(request, now),
            Command::Weight { route, endpoint, weight } => {
                let (route, key) = self.endpoint(route, endpoint, endpoints)?;
                Ok(self.weight(route, &key, *weight)?.of(&key))
            }
            Command::Drain { route, endpoint } => {
                let (route, key) = self.endpoint(route, endpoint, endpoints)?;
                Ok(self.drain(route, &key)?.of(&key))
            }
            Command::Undrain { route, endpoint } => {
                let (route, key) = self.endpoint(route, endpoint, endpoints)?;
                Ok(self.undrain(route, &key)?.of(&key))
            }
            Command::Add { line } => self.add(line),
            Command::Remove { route } => self.remove(route),
            Command::Restore { route } => self.restore(route),
        }
    }

    /// Undoes the addition of a route whose listener could not be bound.
    pub(in crate::reconcile) fn undo_add(&mut self, name: &str) {
        self.overrides.added.retain(|added| added.options.name != name);
    }

    fn pause(&mut self, name: &str) -> Result<Outcome, CommandError> {
        let route = self.named(name)?.options.name.clone();
        if self.is_paused(&route) {
            let message = format!("route {route} is already paused");
            return Ok(Outcome::unchanged(route, message));
        }
        self.overrides.change(&route, |change| change.paused = true)?;
        let message = format!("route {route} is paused: new sessions are held until `resume`");
        Ok(Outcome::new(route.clone(), message, EventKind::Paused { route }))
    }

    fn resume(&mut self, name: &str) -> Result<Outcome, CommandError> {
        let route = self.named(name)?.options.name.clone();
        if !self.is_paused(&route) {
            let message = format!("route {route} is not paused");
            return Ok(Outcome::unchanged(route, message));
        }
        self.overrides.change(&route, |change| change.paused = false)?;
        let message = format!("route {route} is resumed: new sessions are connected");
        Ok(Outcome::new(route.clone(), message, EventKind::Resumed { route }))
    }

    fn switch(&mut self, request: &SwitchRequest, now: Instant) -> Result<Outcome, CommandError> {
        let SwitchRequest { route, targets, old, trial } = request;
        let source = self.source_route(route).ok_or_else(|| self.unknown(route))?;
        let (name, source_targets) = (source.options.name.clone(), source.targets.clone());
        let on_remove = old.unwrap_or(source.options.on_remove);
        let new = targets.as_ref().map(|text| self.parse_targets(text, source)).transpose()?;
        let before = self.overrides.of(&name).and_then(|change| change.targets.clone());
        let instead_of = list(before.as_ref().unwrap_or(&source_targets));
        let now_to = list(new.as_ref().unwrap_or(&source_targets));
        self.overrides.change(&name, |change| change.targets.clone_from(&new))?;
        match trial {
            None => self.switches.keep(&name),
            Some(trial) => {
                let deadline = trial.timeout.and_then(|timeout| now.checked_add(timeout));
                self.switches.begin_trial(&name, TrialTerms { deadline, rollback_targets: before });
            }
        }
        // Not `self.route`, which would borrow the switches as well.
        if let Some(serving) = self.table.values().find(|route| route.options.name == name) {
            self.switches.keep_serving(serving, on_remove);
        }
        let message = switch_message(&name, &now_to, new.is_some(), trial.is_some());
        let route = name.clone();
        let event = match new {
            Some(_) => EventKind::Switched { route, targets: now_to, instead_of },
            None => EventKind::SwitchReset { route, targets: now_to },
        };
        Ok(Outcome::new(name, message, event))
    }

    fn weight(
        &mut self,
        route: String,
        key: &EndpointKey,
        weight: Option<u32>,
    ) -> Result<Outcome, CommandError> {
        self.overrides.change(&route, |change| {
            match weight {
                Some(weight) => change.weights.insert(key.clone(), weight),
                None => change.weights.remove(key),
            };
        })?;
        let weight = weight.unwrap_or_else(|| self.source_weight(&route, key));
        let endpoint = key.to_string();
        let message = format!("route {route}: the weight of {endpoint} is {weight}");
        Ok(Outcome::new(route.clone(), message, EventKind::EndpointWeighted { route, endpoint, weight }))
    }

    /// Returns the weight that the source of an endpoint reports.
    fn source_weight(&self, route: &str, key: &EndpointKey) -> u32 {
        let endpoints =
            self.route(route).map(|route| self.discovery.resolve(route).endpoints).unwrap_or_default();
        endpoints.iter().find(|endpoint| endpoint.key == *key).map_or(1, |endpoint| endpoint.weight)
    }

    fn drain(&mut self, route: String, key: &EndpointKey) -> Result<Outcome, CommandError> {
        let endpoint = key.to_string();
        self.overrides.change(&route, |change| {
            change.drained.insert(key.clone());
        })?;
        let message = format!("route {route}: {endpoint} takes no new sessions");
        Ok(Outcome::new(route.clone(), message, EventKind::EndpointDrained { route, endpoint }))
    }

    fn undrain(&mut self, route: String, key: &EndpointKey) -> Result<Outcome, CommandError> {
        self.overrides.change(&route, |change: &mut Override| {
            change.drained.remove(key);
        })?;
        let endpoint = key.to_string();
        let message = format!("route {route}: {endpoint} takes new sessions again");
        Ok(Outcome::new(route.clone(), message, EventKind::EndpointUndrained { route, endpoint }))
    }

    fn add(&mut self, line: &str) -> Result<Outcome, CommandError> {
        let route = parse_route(line, &Place::Operator).map_err(CommandError::Invalid)?;
        self.check_permitted(&route)?;
        if let Some(other) = self.table.values().find(|other| other.excludes(&route)) {
            let (name, origin) = (&other.options.name, &other.origin);
            return Err(CommandError::Conflict(format!(
                "route `{name}` ({origin}) already has this listener or this name"
            )));
        }
        let (name, listen, line) = (route.options.name.clone(), route.listen.clone(), route.to_string());
        self.overrides.add(route)?;
        let message = format!("route {name} is open until the next restart");
        let outcome = Outcome::new(name.clone(), message, EventKind::RouteAdded { route: name, line });
        Ok(Outcome { must_bind: Some(listen), ..outcome })
    }

    fn remove(&mut self, name: &str) -> Result<Outcome, CommandError> {
        let route = self.named(name)?.options.name.clone();
        self.overrides.remove(&route)?;
        let message =
            format!("route {route} is closed until the next restart; its sessions end as `on-remove` says");
        Ok(Outcome::new(route.clone(), message, EventKind::RouteRemoved { route }))
    }

    fn restore(&mut self, name: &str) -> Result<Outcome, CommandError> {
        if self.overrides.is_added(name) {
            return Err(CommandError::Conflict(format!("another route `{name}` was added: remove it first")));
        }
        if !self.overrides.restore(name) {
            let known = self.removed();
            return Err(CommandError::Unknown { what: "removed route", name: name.to_owned(), known });
        }
        let message = format!("route {name} is restored: it is open while a source has it");
        let route = name.to_owned();
        Ok(Outcome::new(route.clone(), message, EventKind::RouteRestored { route }))
    }

    fn named(&self, name: &str) -> Result<&Route, CommandError> {
        self.route(name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> CommandError {
        let known = self.table.values().map(|route| route.options.name.clone()).collect();
        CommandError::Unknown { what: "route", name: name.to_owned(), known }
    }

    fn parse_targets(&self, text: &str, route: &Route) -> Result<Vec<Target>, CommandError> {
        let targets = target::parse_list(text, &route.listen).map_err(|mistakes| {
            CommandError::Invalid(mistakes.into_iter().map(|mistake| mistake.at(&Place::Operator)).collect())
        })?;
        self.check_permitted(&Route { targets: targets.clone(), ..route.clone() })?;
        Ok(targets)
    }

    /// Returns an error if the settings of peers do not permit the route, or it cannot use TLS as it is written.
    fn check_permitted(&self, route: &Route) -> Result<(), CommandError> {
        let of_peers = self.config.settings.peer.refusal(route).map(|mistake| mistake.at(&Place::Operator));
        match of_peers.or_else(|| Tls::current().refusal(route)) {
            Some(refusal) => Err(CommandError::Invalid(vec![refusal])),
            None => Ok(()),
        }
    }

    /// Returns the name of the route, and the endpoint of it that `endpoint` identifies.
    fn endpoint(
        &self,
        route: &str,
        endpoint: &str,
        endpoints: impl Fn(&Listen) -> Vec<EndpointKey>,
    ) -> Result<(String, EndpointKey), CommandError> {
        let route = self.named(route)?;
        Ok((route.options.name.clone(), find(&endpoints(&route.listen), endpoint)?))
    }
}

fn switch_message(route: &str, targets: &str, is_switched: bool, is_on_trial: bool) -> String {
    match (is_switched, is_on_trial) {
        (false, _) => format!("route {route} uses {targets} again"),
        (true, true) => {
            format!("route {route} is on trial with {targets}: each endpoint must answer before it is used")
        }
        (true, false) => format!(
            "route {route} is switched to {targets} until the next restart or `switch --reset`; not checked whether it \
             answers (`--wait` does)"
        ),
    }
}

/// Finds the one endpoint that `text` identifies.
fn find(keys: &[EndpointKey], text: &str) -> Result<EndpointKey, CommandError> {
    let found: Vec<&EndpointKey> = keys.iter().filter(|key| is_identified(key, text)).collect();
    match found.as_slice() {
        [key] => Ok((*key).clone()),
        [] => {
            let known = keys.iter().map(ToString::to_string).collect();
            Err(CommandError::Unknown { what: "endpoint", name: text.to_owned(), known })
        }
        several => Err(CommandError::Conflict(format!(
            "`{text}` matches {} endpoints: {}",
            several.len(),
            several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// Returns whether `text` is the endpoint's address, the name of its container, a prefix of that container's ID of at least
/// the length that Docker prints, or the whole as `status` shows it.
fn is_identified(key: &EndpointKey, text: &str) -> bool {
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
    fn endpoint_is_identified_by_address_container_or_both() {
        let id = "0123456789abcdef".to_owned();
        let addr = EndpointAddr::Inet(([10, 0, 0, 1], 80).into());
        let key = EndpointKey { addr, identity: Identity::Container { id, name: "web-1".to_owned() } };
        for text in ["10.0.0.1:80", "web-1", "0123456789ab", "10.0.0.1:80 (container web-1 0123456789ab)"] {
            assert!(is_identified(&key, text), "{text}");
        }
        for text in ["10.0.0.1", "web", "0123", "", "0123456789ac"] {
            assert!(!is_identified(&key, text), "{text}");
        }
    }
}
