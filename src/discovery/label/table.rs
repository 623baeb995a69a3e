//! The routes of labels, put together claim by claim. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Claim, PORTS_MAX, Policy};
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::containers::Kin;
use crate::route::{Listen, Protocol, Route, Shadowed, Target};

/// A listener has one entry; the first to claim it has it.
pub(super) struct Table<'a> {
    policy: &'a Policy<'a>,
    entries: BTreeMap<Listen, Entry<'a>>,
    ports: usize,
}

struct Entry<'a> {
    route: Route,
    /// `None` for a listener that is kept: it lingers after its container was removed, or is no label's.
    kin: Option<Kin<'a>>,
}

impl<'a> Table<'a> {
    /// Holds what no label may take: the listeners that are open without one of these claims.
    pub(super) fn new(policy: &'a Policy<'a>, claims: &[Claim<'_>]) -> Table<'a> {
        let mut table = Table { policy, entries: BTreeMap::new(), ports: 0 };
        let served: BTreeSet<&Listen> =
            claims.iter().filter(|claim| claim.serves(policy)).map(|claim| &claim.listen).collect();
        for (listen, route) in policy.serving.iter().filter(|(listen, _)| !served.contains(*listen)) {
            let entry = Entry { route: (*route).clone(), kin: None };
            table.ports += entry.ports();
            table.entries.insert((*listen).clone(), entry);
        }
        table
    }

    pub(super) fn add(&mut self, claim: Claim<'a>) -> Result<(), Diagnostic> {
        self.give_way_to_successor(&claim);
        if let Some(entry) = self.entries.get_mut(&claim.listen).filter(|entry| entry.kin.is_some()) {
            return entry.join(claim, self.policy.share);
        }
        if let Some(entry) = self.entries.values().find(|entry| entry.excludes(&claim)) {
            return Err(entry.refusal(&claim));
        }
        if self.policy.admin_port.is_some_and(|port| is_among(port, &claim.listen)) {
            let message = format!("{} is the admin API's port", claim.listen);
            return Err(Diagnostic::new(claim.origin, message).help("give the label another port"));
        }
        self.insert(claim)
    }

    /// A container made anew under its name is the successor of the one that was removed.
    fn give_way_to_successor(&mut self, claim: &Claim<'_>) {
        let (entries, ports) = (&mut self.entries, &mut self.ports);
        entries.retain(|_, entry| {
            let gives_way = entry.awaits(claim) && entry.excludes(claim);
            if gives_way {
                *ports -= entry.ports();
            }
            !gives_way
        });
    }

    fn insert(&mut self, claim: Claim<'a>) -> Result<(), Diagnostic> {
        let entry = Entry { route: claim.route(), kin: Some(claim.container.kin(claim.id)) };
        if self.ports + entry.ports() > PORTS_MAX {
            let message = format!(
                "the labels of all containers ask for more than {PORTS_MAX} listening ports, those of removed containers \
                 that are still open included"
            );
            let help = "write a route for the widest range as an argument instead: LISTEN=docker://NAME";
            return Err(Diagnostic::new(entry.route.origin, message).help(help));
        }
        self.ports += entry.ports();
        self.entries.insert(claim.listen, entry);
        Ok(())
    }

    pub(super) fn into_routes(self) -> Vec<Route> {
        let open = self.entries.into_values().filter(|entry| entry.kin.is_some());
        open.map(|entry| entry.route).collect()
    }
}

impl<'a> Entry<'a> {
    /// Ports that count among those of labels.
    fn ports(&self) -> usize {
        let is_label = matches!(self.route.origin, Place::Label { .. });
        if is_label { self.route.listen.count() } else { 0 }
    }

    /// Whether this listener is kept for a container of this name.
    fn awaits(&self, claim: &Claim<'_>) -> bool {
        let name = &claim.container.name;
        self.kin.is_none()
            && matches!(&self.route.origin, Place::Label { container, .. } if container == name)
    }

    /// Whether both cannot be open.
    fn excludes(&self, claim: &Claim<'_>) -> bool {
        self.route.options.name == claim.options.name || self.has_port_of(claim)
    }

    /// Of two containers, one has a port on the addresses of both families: a client of `localhost` tries both.
    fn has_port_of(&self, claim: &Claim<'_>) -> bool {
        let listen = &self.route.listen;
        let other_family = || listen.on_other_family().is_some_and(|other| other.overlaps(&claim.listen));
        listen.overlaps(&claim.listen) || (!self.is_of(claim) && other_family())
    }

    /// Whether the same container is behind it.
    fn is_of(&self, claim: &Claim<'_>) -> bool {
        let is_it = |target: &Target| matches!(target, Target::Docker { name, .. } if *name == claim.id.0);
        self.route.targets.iter().any(is_it)
    }

    fn join(&mut self, claim: Claim<'a>, share: bool) -> Result<(), Diagnostic> {
        if self.route.options != claim.options {
            return Err(self.differing(&claim));
        }
        if !share && self.kin != Some(claim.container.kin(claim.id)) {
            let message = format!(
                "{} is that of {}, and this is no replica of that container: they have neither the Compose service nor the \
                 image in common",
                claim.listen, self.route.origin
            );
            let help = "give it another listener, or start the ambassador with --share-labels";
            return Err(Diagnostic::new(claim.origin, message).help(help));
        }
        self.route.targets.push(claim.target);
        Ok(())
    }

    fn differing(&self, claim: &Claim<'_>) -> Diagnostic {
        let options = claim.options.differing(&self.route.options);
        let keys: Vec<&str> = options.iter().map(|(key, _)| *key).collect();
        let message = format!(
            "{} is shared with {}, but the options differ ({}); this container is left out",
            claim.listen,
            self.route.origin,
            keys.join(", ")
        );
        Diagnostic::new(claim.origin.clone(), message)
            .help("write the same options on both, or another listener")
    }

    fn refusal(&self, claim: &Claim<'_>) -> Diagnostic {
        let Route { listen, options, origin, .. } = &self.route;
        if !matches!(origin, Place::Label { .. }) {
            return Shadowed { route: claim.route(), by: origin.clone() }.diagnostic();
        }
        let (message, help) = if !self.has_port_of(claim) {
            (format!("the name `{}` is that of {origin}", options.name), "give it another name")
        } else if self.kin.is_none() {
            (
                format!("{listen} is kept for {origin}"),
                "give it another listener, or wait until that is closed",
            )
        } else {
            (
                format!("{} overlaps {listen}, which {origin} has", claim.listen),
                "give them ports that do not overlap, or exactly the same listener to share it",
            )
        };
        Diagnostic::new(claim.origin.clone(), message).help(help)
    }
}

fn is_among(port: u16, listen: &Listen) -> bool {
    match listen {
        Listen::Inet { protocol: Protocol::Tcp, ports, .. } => ports.first <= port && port <= ports.last,
        Listen::Inet { .. } | Listen::Unix(_) => false,
    }
}
