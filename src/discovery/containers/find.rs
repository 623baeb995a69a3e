//! Which containers a name means. Pure.
//!
//! The kinds of name are tried in order and the first that fits is the answer: an ID or its beginning, a service of our
//! own Compose project, a container's name, a Compose service elsewhere. What others can choose less freely comes first: no
//! container can choose its ID, and none outside the project is a service of it. They are not joined: a container that
//! happens to be called like another project's service would get a share of its connections.

use std::collections::BTreeSet;

use super::{Container, ContainerId, Containers, Selector, shortened};
use crate::config::suggest::edits;

pub(super) const PROJECT: &str = "com.docker.compose.project";
pub(super) const SERVICE: &str = "com.docker.compose.service";

/// What `docker ps` shows of an ID; fewer digits might be a name.
const PREFIX_MIN: usize = 12;
const ID_LEN: usize = 64;

/// Why a name means nothing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfound {
    /// It may come yet.
    Absent(String),
    /// It never will, as it is written.
    Ambiguous(String),
}

type Match<'a> = (&'a ContainerId, &'a Container);

impl Containers {
    /// The containers that are meant, running or not, by name; never our own, and at least one.
    pub(super) fn select(&self, selector: Selector<'_>) -> Result<Vec<Match<'_>>, Unfound> {
        match selector {
            Selector::Name(name) => self.find(name),
            Selector::Label { key, value } => self.labelled(key, value),
        }
    }

    /// Of every project: a label is its owner's own, and says who is meant.
    fn labelled(&self, key: &str, value: Option<&str>) -> Result<Vec<Match<'_>>, Unfound> {
        let has = |container: &Container| {
            let found = container.labels.get(key);
            found.is_some_and(|found| value.is_none_or(|value| found == value)) && !container.is_oneoff()
        };
        let mut found: Vec<Match<'_>> =
            self.by_id.iter().filter(|(id, container)| !self.is_own(id) && has(container)).collect();
        found.sort_by_key(|(id, container)| (&container.name, *id));
        if !found.is_empty() {
            return Ok(found);
        }
        let label = Selector::Label { key, value };
        let inherits = |container: &Container| {
            container.inherited.get(key).is_some_and(|found| value.is_none_or(|value| found == value))
        };
        Err(Unfound::Absent(format!(
            "there is no container with the {}{}",
            label.to_string().replacen(':', " ", 1),
            self.hint_of_image(inherits)
        )))
    }

    /// The containers that `name` means, running or not, by name; never our own, and at least one.
    pub(crate) fn find(&self, name: &str) -> Result<Vec<Match<'_>>, Unfound> {
        let name = name.strip_prefix('/').unwrap_or(name);
        match self.of_id(name).as_slice() {
            [] => {}
            [only] => return self.unless_own(*only),
            several => {
                return Err(Unfound::Ambiguous(format!(
                    "the ID {name} begins those of {}: write more of it, or a name",
                    shortened(several.iter().map(|(_, container)| &container.name))
                )));
            }
        }
        let service = self.service(name);
        if self.own().and_then(project).is_some()
            && let Ok(service) = &service
            && !service.is_empty()
        {
            return Ok(service.clone());
        }
        if let Some(found) = self.by_id.iter().find(|(_, container)| container.name == name) {
            return self.unless_own(found);
        }
        match service? {
            service if service.is_empty() => Err(Unfound::Absent(self.absent(name))),
            service => Ok(service),
        }
    }

    /// By its own name alone.
    pub(crate) fn by_name(&self, name: &str) -> Option<&Container> {
        self.by_id.values().find(|container| container.name == name)
    }

    pub(crate) fn own(&self) -> Option<&Container> {
        self.by_id.get(self.own_id.as_ref()?)
    }

    pub(crate) fn is_own(&self, id: &ContainerId) -> bool {
        self.own_id.as_ref() == Some(id)
    }

    fn unless_own<'a>(&self, found: Match<'a>) -> Result<Vec<Match<'a>>, Unfound> {
        if self.is_own(found.0) {
            let why = format!("container {} is this ambassador itself: name another", found.1.name);
            return Err(Unfound::Ambiguous(why));
        }
        Ok(vec![found])
    }

    /// The containers of a Compose service: of our own project where we are in one, else of the only project that has
    /// such a service. Two projects' services are two things that share a name, so none is taken.
    fn service(&self, name: &str) -> Result<Vec<Match<'_>>, Unfound> {
        let own_project = self.own().and_then(project);
        let mut found: Vec<Match<'_>> = self.by_id.iter().filter(|(id, _)| !self.is_own(id)).collect();
        found.retain(|(_, container)| {
            is_service(container, name) && (own_project.is_none() || project(container) == own_project)
        });
        found.sort_by_key(|(id, container)| (&container.name, *id));
        let projects: BTreeSet<&str> = found.iter().filter_map(|(_, container)| project(container)).collect();
        if projects.len() > 1 {
            let projects = shortened(projects.iter());
            return Err(Unfound::Ambiguous(format!(
                "{name} is a service of several Compose projects ({projects}): name a container, or run the \
                 ambassador in the project it serves"
            )));
        }
        Ok(found)
    }

    /// The containers whose ID this is, or begins.
    fn of_id(&self, name: &str) -> Vec<Match<'_>> {
        if name.len() < PREFIX_MIN || name.len() > ID_LEN || !is_hex(name) {
            return Vec::new();
        }
        let from = ContainerId(name.to_owned());
        self.by_id.range(from..).take_while(|(id, _)| id.0.starts_with(name)).collect()
    }

    fn absent(&self, name: &str) -> String {
        if name.len() == ID_LEN
            && let Some(shown) = name.get(..PREFIX_MIN)
            && is_hex(name)
        {
            return format!("container {shown} does not exist any more");
        }
        let elsewhere: BTreeSet<&str> =
            self.by_id.values().filter(|container| is_service(container, name)).filter_map(project).collect();
        if let Some(own) = self.own().and_then(project).filter(|_| !elsewhere.is_empty()) {
            let projects = shortened(elsewhere.iter());
            return format!(
                "this ambassador's Compose project {own} has no service {name} ({projects} has one): name a container"
            );
        }
        let near = self.near(name);
        let hint = if near.is_empty() { String::new() } else { format!("; did you mean {near}?") };
        let hint = hint
            + &self.hint_of_image(|container| container.inherited.get(SERVICE).is_some_and(|s| s == name));
        format!("there is no container, and no Compose service, called {name}{hint}")
    }

    /// For a label that a container has from its image.
    fn hint_of_image(&self, inherits: impl Fn(&Container) -> bool) -> String {
        match self.by_id.values().find(|container| inherits(container)) {
            None => String::new(),
            Some(Container { name, image, .. }) if image.is_known => {
                format!("; container {name} has it from its image, which does not count")
            }
            Some(Container { name, .. }) => {
                format!("; container {name} may have it from its image, which cannot be inspected")
            }
        }
    }

    /// Names that look like this one, nearest first.
    fn near(&self, name: &str) -> String {
        let names: BTreeSet<&str> = self
            .by_id
            .iter()
            .filter(|(id, _)| !self.is_own(id))
            .flat_map(|(_, container)| [Some(container.name.as_str()), service_of(container)])
            .flatten()
            .collect();
        let mut near: Vec<(usize, &str)> =
            names.into_iter().filter_map(|known| Some((unlikeness(name, known)?, known))).collect();
        near.sort_unstable();
        near.iter().take(3).map(|(_, known)| *known).collect::<Vec<_>>().join(" or ")
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn project(container: &Container) -> Option<&str> {
    container.labels.get(PROJECT).map(String::as_str)
}

fn service_of(container: &Container) -> Option<&str> {
    container.labels.get(SERVICE).map(String::as_str)
}

fn is_service(container: &Container, name: &str) -> bool {
    service_of(container) == Some(name) && !container.is_oneoff()
}

/// Longer names than people write are not compared.
const COMPARED_MAX: usize = 64;

/// How far apart two names are, where they are near enough to be meant for one another.
fn unlikeness(wanted: &str, known: &str) -> Option<usize> {
    if wanted.is_empty() || wanted.len() > COMPARED_MAX || known.len() > COMPARED_MAX {
        return None;
    }
    if known.contains(wanted) || (known.len() >= 3 && wanted.contains(known)) {
        return Some(1);
    }
    let distance = edits(wanted, known);
    (distance <= wanted.len() / 3).then_some(distance)
}
