//! Which containers a target selects. Pure.
//!
//! A name is matched in this order, and the first match is used: an ID or its prefix, a service of the ambassador's own Compose
//! project, a container's name, a Compose service of another project. Matches that other users cannot create come first: no
//! container can choose its ID, and no container outside the project is a service of it. Matches of several kinds are not
//! combined: a container that happens to have the name of another project's service would receive some of its connections.

use std::collections::BTreeSet;
use std::fmt;

use super::model::{COMPOSE_SERVICE, Container, ContainerId, Containers, abbreviated};
use crate::config::suggest::edits;
use crate::ordered::CollectOrdered;

/// The length of the IDs in `docker ps`; a shorter prefix might be a name.
const PREFIX_MIN: usize = 12;
const ID_LEN: usize = 64;

/// Which containers a target selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector<'a> {
    /// A name, an ID or a Compose service.
    Name(&'a str),
    /// A label.
    Label {
        /// The key of the label.
        key: &'a str,
        /// `None` matches any value.
        value: Option<&'a str>,
    },
}

/// Why a selector matches no container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectError {
    /// There is no such container yet.
    #[error("{0}")]
    Absent(String),
    /// The selector has to be changed.
    #[error("{0}")]
    Ambiguous(String),
}

type Match<'a> = (&'a ContainerId, &'a Container);

impl<'a> From<&'a str> for Selector<'a> {
    fn from(name: &'a str) -> Selector<'a> {
        Selector::Name(name)
    }
}

impl fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Name(name) => write!(f, "{name}"),
            Selector::Label { key, value: Some(value) } => write!(f, "label:{key}={value}"),
            Selector::Label { key, value: None } => write!(f, "label:{key}"),
        }
    }
}

impl Containers {
    /// Returns the selected containers, running or not, sorted by name: at least one, and never the ambassador's own.
    pub(super) fn select(&self, selector: Selector<'_>) -> Result<Vec<Match<'_>>, SelectError> {
        match selector {
            Selector::Name(name) => self.find(name),
            Selector::Label { key, value } => self.labelled(key, value),
        }
    }

    /// Selects in every project: a label is chosen for this purpose, so it is not ambiguous.
    fn labelled(&self, key: &str, value: Option<&str>) -> Result<Vec<Match<'_>>, SelectError> {
        let has = |container: &Container| {
            let found = container.labels.get(key);
            found.is_some_and(|found| value.is_none_or(|value| found == value)) && !container.is_oneoff()
        };
        let found: Vec<Match<'_>> = self.others().filter(|(_, container)| has(container)).collect();
        if !found.is_empty() {
            return Ok(sorted(found));
        }
        let label = Selector::Label { key, value };
        let inherits = |container: &Container| {
            container.inherited.get(key).is_some_and(|found| value.is_none_or(|value| found == value))
        };
        Err(SelectError::Absent(format!(
            "there is no container with the {}{}",
            label.to_string().replacen(':', " ", 1),
            self.image_label_hint(inherits)
        )))
    }

    /// Returns the containers of this name, as [`Containers::select`].
    pub(crate) fn find(&self, name: &str) -> Result<Vec<Match<'_>>, SelectError> {
        let name = name.strip_prefix('/').unwrap_or(name);
        match self.with_id_prefix(name).as_slice() {
            [] => {}
            [only] => return self.unless_own(*only),
            several => {
                return Err(SelectError::Ambiguous(format!(
                    "the ID {name} is a prefix of those of {}: write more digits, or a name",
                    abbreviated(several.iter().map(|(_, container)| &container.name))
                )));
            }
        }
        let service = self.service(name);
        if self.own().and_then(Container::compose_project).is_some()
            && let Ok(service) = &service
            && !service.is_empty()
        {
            return Ok(service.clone());
        }
        if let Some(found) = self.by_id.iter().find(|(_, container)| container.name == name) {
            return self.unless_own(found);
        }
        match service? {
            service if service.is_empty() => Err(SelectError::Absent(self.absent(name))),
            service => Ok(service),
        }
    }

    fn unless_own<'a>(&self, found: Match<'a>) -> Result<Vec<Match<'a>>, SelectError> {
        if self.is_own(found.0) {
            let why = format!("container {} is this ambassador itself: name another", found.1.name);
            return Err(SelectError::Ambiguous(why));
        }
        Ok(vec![found])
    }

    /// Returns the containers of a Compose service: of the ambassador's own project if it is part of one, else of the only
    /// project that has such a service. Services of two projects are unrelated, so neither is used.
    fn service(&self, name: &str) -> Result<Vec<Match<'_>>, SelectError> {
        let own_project = self.own().and_then(Container::compose_project);
        let in_project =
            |container: &Container| own_project.is_none() || container.compose_project() == own_project;
        let found: Vec<Match<'_>> = self
            .others()
            .filter(|(_, container)| is_service(container, name) && in_project(container))
            .collect();
        let projects: BTreeSet<&str> =
            found.iter().filter_map(|(_, container)| container.compose_project()).collect_ordered();
        if projects.len() > 1 {
            let projects = abbreviated(projects.iter());
            return Err(SelectError::Ambiguous(format!(
                "{name} is a service of several Compose projects ({projects}): name a container, or run the \
                 ambassador in the project it serves"
            )));
        }
        Ok(sorted(found))
    }

    /// Returns the containers whose ID is `name` or starts with it.
    fn with_id_prefix(&self, name: &str) -> Vec<Match<'_>> {
        if name.len() < PREFIX_MIN || name.len() > ID_LEN || !is_hex(name) {
            return Vec::new();
        }
        let from = ContainerId(name.to_owned());
        self.by_id.range(from..).take_while(|(id, _)| id.0.starts_with(name)).collect()
    }

    /// Explains why no container has this name.
    fn absent(&self, name: &str) -> String {
        if name.len() == ID_LEN
            && let Some(shown) = name.get(..PREFIX_MIN)
            && is_hex(name)
        {
            return format!("container {shown} does not exist any more");
        }
        let elsewhere: BTreeSet<&str> = self
            .by_id
            .values()
            .filter(|container| is_service(container, name))
            .filter_map(Container::compose_project)
            .collect_ordered();
        if let Some(own) = self.own().and_then(Container::compose_project).filter(|_| !elsewhere.is_empty()) {
            let projects = abbreviated(elsewhere.iter());
            return format!(
                "this ambassador's Compose project {own} has no service {name} ({projects} has one): name a container"
            );
        }
        let near = self.similar_names(name);
        let hint = if near.is_empty() { String::new() } else { format!("; did you mean {near}?") };
        let inherits = |container: &Container| {
            container.inherited.get(COMPOSE_SERVICE).is_some_and(|service| service == name)
        };
        let hint = hint + &self.image_label_hint(inherits);
        format!("there is no container, and no Compose service, called {name}{hint}")
    }

    /// Returns a hint at a container that inherits the label from its image.
    fn image_label_hint(&self, inherits: impl Fn(&Container) -> bool) -> String {
        match self.by_id.values().find(|container| inherits(container)) {
            None => String::new(),
            Some(Container { name, image, .. }) if image.is_known => {
                format!("; container {name} has it from its image, where it is ignored")
            }
            Some(Container { name, .. }) => {
                format!("; container {name} may have it from its image, which cannot be inspected")
            }
        }
    }

    /// Returns up to three similar names of containers and services, the most similar first.
    fn similar_names(&self, name: &str) -> String {
        let names: BTreeSet<&str> = self
            .others()
            .flat_map(|(_, container)| [Some(container.name.as_str()), container.compose_service()])
            .flatten()
            .collect_ordered();
        let mut similar: Vec<(usize, &str)> =
            names.into_iter().filter_map(|candidate| Some((distance(name, candidate)?, candidate))).collect();
        similar.sort_unstable();
        similar.iter().take(3).map(|(_, candidate)| *candidate).collect::<Vec<_>>().join(" or ")
    }
}

fn sorted(mut found: Vec<Match<'_>>) -> Vec<Match<'_>> {
    found.sort_unstable_by_key(|(id, container)| (&container.name, *id));
    found
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_service(container: &Container, name: &str) -> bool {
    container.compose_service() == Some(name) && !container.is_oneoff()
}

/// Longer names are not compared.
const COMPARED_MAX: usize = 64;

/// Returns the distance of two names; `None` if they are not similar.
fn distance(wanted: &str, candidate: &str) -> Option<usize> {
    if wanted.is_empty() || wanted.len() > COMPARED_MAX || candidate.len() > COMPARED_MAX {
        return None;
    }
    if candidate.contains(wanted) || (candidate.len() >= 3 && wanted.contains(candidate)) {
        return Some(1);
    }
    let distance = edits(wanted, candidate);
    (distance <= wanted.len() / 3).then_some(distance)
}
