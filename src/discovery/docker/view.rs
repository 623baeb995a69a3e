//! What we know of one engine, and what we have yet to ask. Pure: events, lists and answers go in, questions and
//! snapshots come out.
//!
//! ```text
//!   event, list ──► dirty ──► asked ──► answered ──► known ──► snapshot
//!                     ▲         │
//!                     └─────────┘ outdated: it lost something while its answer was under way
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::api::Listed;
use super::event::Event;
use crate::discovery::containers::{Attachment, Container, ContainerId, Containers, Leaving};

/// What an inspection said.
#[derive(Debug)]
pub(super) enum Answer {
    Is(Box<Container>),
    /// 404.
    Gone,
    /// No answer this time; what we knew stands until the next list.
    Silent,
}

/// Whether an answer that is under way still counts when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Current,
    Outdated,
}

#[derive(Debug, Default)]
pub(super) struct View {
    known: BTreeMap<ContainerId, Container>,
    dirty: BTreeSet<ContainerId>,
    asked: BTreeMap<ContainerId, Asked>,
    /// Told to stop, and not dead yet. No inspection says so.
    leaving: BTreeMap<ContainerId, Leaving>,
    /// Those that an event or an answer was about since the list was asked for: it may be older than that.
    stirred: BTreeSet<ContainerId>,
    /// Those to inspect because the list differs, without an event.
    doubted: BTreeSet<ContainerId>,
    /// A container changed, and no event said so.
    missed: bool,
    /// Those that show an address which another shows too.
    contested: BTreeSet<ContainerId>,
    /// What was published last.
    shown: Option<Containers>,
    /// Who we may be: whole IDs, or beginnings of one; the likeliest first.
    own: Vec<String>,
    /// The version of the engine.
    engine: String,
}

impl View {
    pub(super) fn new(own: Vec<String>, engine: String) -> View {
        View { own, engine, ..View::default() }
    }

    pub(super) fn heard(&mut self, event: Event) {
        self.stirred.insert(event.container().clone());
        self.doubted.remove(event.container());
        self.apply(event);
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Touched(id) => {
                self.dirty.insert(id);
            }
            Event::Leaving(id, leaving) => {
                let leaving = leaving.max(self.leaving.get(&id).copied().unwrap_or_default());
                if let Some(container) = self.known.get_mut(&id) {
                    container.leaving = leaving;
                }
                self.leaving.insert(id, leaving);
            }
            Event::Stopped(id) => {
                if let Some(container) = self.known.get_mut(&id) {
                    container.running = false;
                    container.paused = false;
                    container.leaving = Leaving::No;
                }
                self.leaving.remove(&id);
                self.outdate(&id);
                self.dirty.insert(id);
            }
            Event::Left { container: id, network } => {
                if let Some(container) = self.known.get_mut(&id) {
                    container.networks.remove(&network);
                }
                self.outdate(&id);
                self.dirty.insert(id);
            }
            Event::Destroyed(id) => {
                self.known.remove(&id);
                self.dirty.remove(&id);
                self.leaving.remove(&id);
                self.outdate(&id);
            }
        }
    }

    fn outdate(&mut self, id: &ContainerId) {
        if let Some(asked) = self.asked.get_mut(id) {
            *asked = Asked::Outdated;
        }
    }

    /// The IDs known now, to compare a list with that is about to be asked for.
    pub(super) fn listing(&mut self) -> BTreeSet<ContainerId> {
        self.stirred.clear();
        self.known.keys().cloned().collect()
    }

    /// A whole list; `before` is what was known when it was asked for, so that a container created since, whose event
    /// came first, is not taken for one that is gone.
    ///
    /// What it takes away goes at once, as with an event. All else is a reason to inspect.
    pub(super) fn listed(&mut self, list: &[Listed], before: &BTreeSet<ContainerId>) {
        let listed: BTreeSet<&ContainerId> = list.iter().map(|line| &line.id).collect();
        for id in before.iter().filter(|id| !listed.contains(id)) {
            self.missed |= self.known.contains_key(id);
            self.apply(Event::Destroyed(id.clone()));
        }
        let owners = owners(list);
        for line in list {
            let Some(known) = self.known.get_mut(&line.id) else {
                self.doubt(line.id.clone());
                continue;
            };
            let agrees = line.agrees(known);
            if !agrees && !self.stirred.contains(&line.id) {
                let is_dead = line.is_stopped() && known.running;
                let is_robbed = leave_to_others(known, &line.id, &owners);
                self.missed |= is_dead || is_robbed;
                if is_dead {
                    self.apply(Event::Stopped(line.id.clone()));
                }
            }
            if !agrees {
                self.doubt(line.id.clone());
            }
        }
    }

    fn doubt(&mut self, id: ContainerId) {
        if !self.stirred.contains(&id) {
            self.doubted.insert(id.clone());
        }
        self.dirty.insert(id);
    }

    /// Whether a container has changed without an event since this was called last.
    pub(super) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    /// The next container to inspect. Never one whose answer is under way.
    pub(super) fn ask(&mut self) -> Option<ContainerId> {
        let id = self.dirty.iter().find(|id| !self.asked.contains_key(*id))?.clone();
        self.dirty.remove(&id);
        self.asked.insert(id.clone(), Asked::Current);
        Some(id)
    }

    pub(super) fn answered(&mut self, id: ContainerId, answer: Answer) {
        self.stirred.insert(id.clone());
        let is_doubted = self.doubted.remove(&id);
        match (self.asked.remove(&id), answer) {
            // What it lost is in `known` already, and it was made dirty again then, unless it is destroyed.
            (Some(Asked::Outdated) | None, _) | (_, Answer::Silent) => {}
            (Some(Asked::Current), Answer::Is(container)) => {
                let leaving = self.leaving.get(&id).copied().unwrap_or_default();
                let container = Container { leaving, ..*container };
                self.missed |= is_doubted && self.known.get(&id) != Some(&container);
                self.known.insert(id, container);
            }
            (Some(Asked::Current), Answer::Gone) => {
                self.known.remove(&id);
                self.dirty.remove(&id);
            }
        }
    }

    /// Nothing left to ask, and no answer under way.
    pub(super) fn settled(&self) -> bool {
        self.dirty.is_empty() && self.asked.is_empty()
    }

    /// How many containers there is something to ask about.
    pub(super) fn pending(&self) -> usize {
        self.dirty.len()
    }

    /// What is to be published, where it differs from what was. Those that have begun to contest an address are to be
    /// inspected after this.
    pub(super) fn snapshot(&mut self) -> Option<Containers> {
        let mut by_id = self.known.clone();
        let contested = disown_contested(&mut by_id);
        self.dirty.extend(contested.difference(&self.contested).cloned());
        self.contested = contested;
        let snapshot = Containers { own_id: self.own_id(), engine: self.engine.clone(), by_id };
        if self.shown.as_ref() == Some(&snapshot) {
            return None;
        }
        self.shown = Some(snapshot.clone());
        Some(snapshot)
    }

    fn own_id(&self) -> Option<ContainerId> {
        self.own.iter().find_map(|candidate| {
            let mut matching = self
                .known
                .range(ContainerId(candidate.clone())..)
                .take_while(|(id, _)| id.0.starts_with(candidate));
            let (id, _) = matching.next()?;
            matching.next().is_none().then(|| id.clone())
        })
    }
}

/// Who has an address on a network, by a list.
type Owners<'l> = BTreeMap<(&'l String, IpAddr), &'l ContainerId>;

fn owners(list: &[Listed]) -> Owners<'_> {
    let claims = list.iter().flat_map(|line| line.networks().map(move |claim| (&line.id, claim)));
    let claims = claims.flat_map(|(id, (network, attachment))| {
        addresses(attachment).map(move |address| ((network, address), id))
    });
    claims.collect()
}

/// Takes the addresses from a container that only others have. Whether there was one.
fn leave_to_others(container: &mut Container, id: &ContainerId, owners: &Owners<'_>) -> bool {
    let mut is_robbed = false;
    for (network, attachment) in &mut container.networks {
        let mut is_own = |ip: IpAddr| {
            let is_own = owners.get(&(network, ip)).is_none_or(|owner| *owner == id);
            is_robbed |= !is_own;
            is_own
        };
        attachment.ipv4 = attachment.ipv4.filter(|ip| is_own(IpAddr::V4(*ip)));
        attachment.ipv6 = attachment.ipv6.filter(|ip| is_own(IpAddr::V6(*ip)));
    }
    is_robbed
}

/// One address on one network has one owner. Two answers that were under way while an address changed hands may show
/// it twice; then neither has it, until another inspection says whose it is. Returns those that show one.
fn disown_contested(by_id: &mut BTreeMap<ContainerId, Container>) -> BTreeSet<ContainerId> {
    let mut claimed: BTreeMap<(String, IpAddr), usize> = BTreeMap::new();
    for container in by_id.values().filter(|container| container.running) {
        for (network, attachment) in &container.networks {
            for address in addresses(attachment) {
                *claimed.entry((network.clone(), address)).or_default() += 1;
            }
        }
    }
    claimed.retain(|_, claims| *claims > 1);
    let mut contesting = BTreeSet::new();
    if claimed.is_empty() {
        return contesting;
    }
    for (id, container) in by_id {
        for (network, attachment) in &mut container.networks {
            let mut is_sole = |ip: IpAddr| {
                let is_sole = !claimed.contains_key(&(network.clone(), ip));
                if !is_sole && container.running {
                    contesting.insert(id.clone());
                }
                is_sole
            };
            attachment.ipv4 = attachment.ipv4.filter(|ip| is_sole(IpAddr::V4(*ip)));
            attachment.ipv6 = attachment.ipv6.filter(|ip| is_sole(IpAddr::V6(*ip)));
        }
    }
    contesting
}

fn addresses(attachment: &Attachment) -> impl Iterator<Item = IpAddr> {
    attachment.ipv4.map(IpAddr::V4).into_iter().chain(attachment.ipv6.map(IpAddr::V6))
}

#[cfg(test)]
mod tests;
