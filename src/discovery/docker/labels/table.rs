//! The routes of all labels, combined one label at a time. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::listen_label::ListenLabel;
use super::{PORTS_MAX, Policy};
use crate::config::peer::PeerSettings;
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::docker::model::ReplicaGroup;
use crate::ordered::CollectOrdered;
use crate::route::{Listen, Protocol, Route, Shadowed, Target};

/// One entry for each listener; the first label with a listener gets it.
pub(super) struct Table<'a> {
    policy: &'a Policy<'a>,
    entries: BTreeMap<Listen, Entry<'a>>,
    ports: usize,
}

struct Entry<'a> {
    route: Route,
    /// The containers that may join. `None` for a reserved listener: its container was removed and its removal grace has not
    /// ended, or it does not belong to a label.
    group: Option<&'a ReplicaGroup>,
}

impl<'a> Table<'a> {
    /// Reserves the listeners that are open without one of these labels.
    pub(super) fn new(policy: &'a Policy<'a>, labels: &[&ListenLabel]) -> Table<'a> {
        let mut table = Table { policy, entries: BTreeMap::new(), ports: 0 };
        let served: BTreeSet<&Listen> = labels
            .iter()
            .filter(|label| label.is_serving(policy))
            .map(|label| &label.listen)
            .collect_ordered();
        for (listen, route) in policy.serving.iter().filter(|(listen, _)| !served.contains(*listen)) {
            let entry = Entry { route: (*route).clone(), group: None };
            table.ports += entry.ports();
            table.entries.insert((*listen).clone(), entry);
        }
        table
    }

    /// Adds a label as a route, or as a target of the route it shares a listener with.
    pub(super) fn add(&mut self, label: &'a ListenLabel) -> Result<(), Diagnostic> {
        if let Some(refusal) = self.policy.refusal(label) {
            return Err(refusal);
        }
        self.release_to_successor(label);
        if let Some(entry) = self.entries.get_mut(&label.listen).filter(|entry| entry.group.is_some()) {
            return entry.join(label, self.policy.share);
        }
        if let Some(entry) = self.entries.values().find(|entry| entry.conflicts_with(label)) {
            return Err(entry.conflict(label));
        }
        if self.policy.admin_port.is_some_and(|port| has_tcp_port(&label.listen, port)) {
            let message = format!("{} is the admin API's port", label.listen);
            return Err(Diagnostic::new(label.origin.clone(), message).help("give the label another port"));
        }
        let peer_port = self.policy.peer.and_then(PeerSettings::port);
        if peer_port.is_some_and(|port| has_tcp_port(&label.listen, port)) {
            let message = format!("{} is the port on which peers dial this ambassador", label.listen);
            return Err(Diagnostic::new(label.origin.clone(), message).help("give the label another port"));
        }
        self.insert(label)
    }

    /// Releases listeners that are reserved for a removed container of the same name: a container recreated under its name is
    /// its successor.
    fn release_to_successor(&mut self, label: &ListenLabel) {
        let (entries, ports) = (&mut self.entries, &mut self.ports);
        entries.retain(|_, entry| {
            let is_released = entry.is_reserved_for(label) && entry.conflicts_with(label);
            if is_released {
                *ports -= entry.ports();
            }
            !is_released
        });
    }

    fn insert(&mut self, label: &'a ListenLabel) -> Result<(), Diagnostic> {
        let entry = Entry { route: label.route(), group: Some(&label.owner.group) };
        if self.ports + entry.ports() > PORTS_MAX {
            let message = format!(
                "the labels of all containers have more than {PORTS_MAX} listening ports, including open ports of removed \
                 containers"
            );
            let help = "write a route for the widest range as an argument instead: LISTEN=docker://NAME";
            return Err(Diagnostic::new(entry.route.origin, message).help(help));
        }
        self.ports += entry.ports();
        self.entries.insert(label.listen.clone(), entry);
        Ok(())
    }

    pub(super) fn into_routes(self) -> Vec<Route> {
        let open = self.entries.into_values().filter(|entry| entry.group.is_some());
        open.map(|entry| entry.route).collect()
    }
}

impl Entry<'_> {
    /// Returns the number of its ports that count towards [`PORTS_MAX`].
    fn ports(&self) -> usize {
        let is_label = matches!(self.route.origin, Place::Label { .. });
        if is_label { self.route.listen.count() } else { 0 }
    }

    fn is_reserved_for(&self, label: &ListenLabel) -> bool {
        self.group.is_none()
            && matches!(&self.route.origin, Place::Label { container, .. } if *container == label.owner.name)
    }

    /// Returns whether at most one of the two can be open.
    fn conflicts_with(&self, label: &ListenLabel) -> bool {
        self.route.options.name == label.options.name || self.has_port_of(label)
    }

    /// Returns whether both have a port in common. One port on the addresses of both families belongs to one container: a
    /// client of `localhost` tries both.
    fn has_port_of(&self, label: &ListenLabel) -> bool {
        let listen = &self.route.listen;
        let other_family = || listen.on_other_family().is_some_and(|other| other.overlaps(&label.listen));
        listen.overlaps(&label.listen) || (!self.is_same_container(label) && other_family())
    }

    fn is_same_container(&self, label: &ListenLabel) -> bool {
        let is_owner =
            |target: &Target| matches!(target, Target::Docker { name, .. } if *name == label.owner.id.0);
        self.route.targets.iter().any(is_owner)
    }

    fn join(&mut self, label: &ListenLabel, share: bool) -> Result<(), Diagnostic> {
        if self.route.options != label.options {
            return Err(self.different_options(label));
        }
        if !share && self.group != Some(&label.owner.group) {
            let message = format!(
                "{} is used by {}, and this container is not a replica of it: they have neither the Compose service nor the \
                 image in common",
                label.listen, self.route.origin
            );
            let help = "give it another listener, or start the ambassador with --share-labels";
            return Err(Diagnostic::new(label.origin.clone(), message).help(help));
        }
        self.route.targets.push(label.target.clone());
        Ok(())
    }

    fn different_options(&self, label: &ListenLabel) -> Diagnostic {
        let options = label.options.differing(&self.route.options);
        let keys: Vec<&str> = options.iter().map(|(key, _)| *key).collect();
        let message = format!(
            "{} is shared with {}, but the options differ ({}); this container is left out",
            label.listen,
            self.route.origin,
            keys.join(", ")
        );
        Diagnostic::new(label.origin.clone(), message)
            .help("write the same options on both, or another listener")
    }

    fn conflict(&self, label: &ListenLabel) -> Diagnostic {
        let Route { listen, options, origin, .. } = &self.route;
        if !matches!(origin, Place::Label { .. }) {
            return Shadowed { route: label.route(), by: origin.clone() }.diagnostic();
        }
        let (message, help) = if !self.has_port_of(label) {
            (format!("the name `{}` is used by {origin}", options.name), "give it another name")
        } else if self.group.is_none() {
            (
                format!("{listen} is reserved for {origin}"),
                "give it another listener, or wait until that listener is closed",
            )
        } else {
            (
                format!("{} overlaps {listen}, which is used by {origin}", label.listen),
                "give them ports that do not overlap, or exactly the same listener to share it",
            )
        };
        Diagnostic::new(label.origin.clone(), message).help(help)
    }
}

fn has_tcp_port(listen: &Listen, port: u16) -> bool {
    listen.ports().is_some_and(|(protocol, _, ports)| {
        protocol == Protocol::Tcp && ports.first <= port && port <= ports.last
    })
}
