//! Routes of containers with the label `ambassador.listen.<LISTEN>=<PORT>[?options]`. Pure.
//!
//! A stopped container keeps its routes while it exists: a route without an endpoint holds its sessions, so a restart is a
//! pause; without the route they would be refused.

mod listen_label;
mod table;
mod unknown;

use std::collections::BTreeMap;

use super::model::{Container, Containers};
use crate::config::peer::PeerSettings;
use crate::diagnostic::{Diagnostic, Place};
use crate::route::{Listen, Route};
use listen_label::ListenLabel;
use table::Table;

/// The prefix of the labels; the rest of the key is the listener.
const PREFIX: &str = "ambassador.listen.";

// Any user who may start a container may label it, so labels are limited. A listener is one socket for each worker, and the
// hard limit of open files may be 1,024 (Docker 29's default).
const PORTS_MAX: usize = 4096;
const LABELS_MAX: usize = 64;
const LABEL_LEN_MAX: usize = 4096;
/// Labels of all containers: each is compared with those before it.
const LABELS_TOTAL_MAX: usize = 4096;
/// Mistakes reported at a time.
const MISTAKES_MAX: usize = 256;

/// What determines, beside the labels themselves, which of them become routes.
#[derive(Clone, Debug, Default)]
pub struct Policy<'a> {
    /// The current routes of Docker's containers, those within their removal grace included. No label takes over one of their
    /// listeners.
    pub serving: BTreeMap<&'a Listen, &'a Route>,
    /// Whether containers that are not replicas of one another may share a listener (`--share-labels`).
    pub share: bool,
    /// The TCP port of the admin API, which no label may listen on.
    pub admin_port: Option<u16>,
    /// Whether labels may offer exports to peers, and the TCP port for peers, which no label may listen on. `None` permits no
    /// exports.
    pub peer: Option<&'a PeerSettings>,
}

impl Policy<'_> {
    /// Returns why the settings of peers do not permit the route of a label.
    fn refusal(&self, label: &ListenLabel) -> Option<Diagnostic> {
        if !matches!(label.listen, Listen::Peer { .. }) {
            return None;
        }
        let route = label.route();
        let mistake = match self.peer {
            Some(settings) => settings.refusal(&route),
            None => PeerSettings::default().refusal(&route),
        };
        mistake.map(|mistake| mistake.at(&route.origin))
    }
}

/// The parsed labels of all containers of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// The oldest container first.
    valid: Vec<ListenLabel>,
    mistakes: Vec<Diagnostic>,
    unknown: Vec<Diagnostic>,
}

impl Labels {
    /// Parses the labels of all containers but our own. An invalid label does not affect any other.
    pub fn parse(containers: &Containers) -> Labels {
        let mut labels = Labels::default();
        for (id, container) in containers.others() {
            labels.mistakes.extend(inherited_label(container));
            let (valid, mistakes) = listen_label::parse_all(id, container);
            labels.valid.extend(valid);
            labels.mistakes.extend(mistakes);
            labels.unknown.extend(unknown::first_unknown(container));
        }
        sorted_and_limited(labels)
    }

    /// Returns the routes of these labels. Replicas with the same listener are endpoints of one route. Of other labels that
    /// conflict, the one that is serving already is used; before any is serving, that of the oldest container.
    pub fn routes(&self, policy: &Policy<'_>) -> (Vec<Route>, Vec<Diagnostic>) {
        let mut mistakes = self.mistakes.clone();
        let mut labels: Vec<&ListenLabel> = self.valid.iter().collect();
        // Stable: by age among those that serve, and among the others.
        labels.sort_by_key(|label| !label.is_serving(policy));
        if let Some(first) = labels.get(LABELS_TOTAL_MAX) {
            let message =
                format!("all containers have more than {LABELS_TOTAL_MAX} such labels; this one is ignored");
            mistakes.push(Diagnostic::new(first.origin.clone(), message).help("use ranges of ports"));
            labels.truncate(LABELS_TOTAL_MAX);
        }
        let mut table = Table::new(policy, &labels);
        mistakes.extend(labels.into_iter().filter_map(|label| table.add(label).err()));
        mistakes.extend_from_slice(&self.unknown);
        mistakes.truncate(MISTAKES_MAX);
        (table.into_routes(), mistakes)
    }
}

/// Reports a label that comes with the image and is therefore ignored.
fn inherited_label(container: &Container) -> Option<Diagnostic> {
    let label = container.inherited.keys().find(|label| label.starts_with(PREFIX))?;
    let (message, help) = if container.image.is_known {
        (
            "this label comes with the container's image, so it is ignored",
            "give the container a label of its own (docker run --label), with another value than the image's",
        )
    } else {
        (
            "the container's image cannot be inspected, so this label may come with the image: it is ignored",
            "allow the request GET /images/ID/json (IMAGES=1 of a socket proxy)",
        )
    };
    Some(Diagnostic::new(place(container, label), message).help(help))
}

fn place(container: &Container, label: &str) -> Place {
    Place::Label { container: container.name.clone(), label: abbreviated(label) }
}

/// Limits the length of a label in a message.
fn abbreviated(label: &str) -> String {
    const SHOWN_MAX: usize = 100;
    if label.chars().count() <= SHOWN_MAX {
        return label.to_owned();
    }
    label.chars().take(SHOWN_MAX).chain("...".chars()).collect()
}

fn sorted_and_limited(mut labels: Labels) -> Labels {
    labels.valid.sort_by(|one, other| one.age().cmp(&other.age()));
    labels.mistakes.truncate(MISTAKES_MAX);
    labels.unknown.truncate(MISTAKES_MAX);
    #[cfg(test)]
    tests::PARSED.set(tests::PARSED.get() + 1);
    labels
}

#[cfg(test)]
pub(crate) mod tests;
