//! One label, parsed. Pure.

use std::sync::Arc;
use std::time::SystemTime;

use super::{LABEL_LEN_MAX, LABELS_MAX, PREFIX, Policy, abbreviated, place};
use crate::config::grammar::{Author, check_port, parse_listen, parse_options};
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::docker::model::{Container, ContainerId, ReplicaGroup};
use crate::route::{Listen, Options, Route, Target};

/// A valid label of a container.
#[derive(Clone, Debug)]
pub(super) struct ListenLabel {
    pub(super) owner: Arc<Owner>,
    pub(super) listen: Listen,
    /// The container, by ID and not by name: a renamed container keeps its labels, and one that takes over its name does not
    /// get them.
    pub(super) target: Target,
    pub(super) options: Options,
    pub(super) origin: Place,
}

/// The container of a label.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) id: ContainerId,
    pub(super) name: String,
    created: Option<SystemTime>,
    pub(super) group: ReplicaGroup,
}

/// Parses the labels of one container.
pub(super) fn parse_all(id: &ContainerId, container: &Container) -> (Vec<ListenLabel>, Vec<Diagnostic>) {
    let (mut valid, mut mistakes) = (Vec::new(), Vec::new());
    let mut labels = container
        .labels
        .range(PREFIX.to_owned()..)
        .take_while(|(label, _)| label.starts_with(PREFIX))
        .peekable();
    if container.is_oneoff() || labels.peek().is_none() {
        return (valid, mistakes);
    }
    let owner = Arc::new(Owner {
        id: id.clone(),
        name: container.name.clone(),
        created: container.created,
        group: container.replica_group(id),
    });
    for (n, (label, value)) in labels.enumerate() {
        if n == LABELS_MAX {
            mistakes.push(too_many(container, label));
            break;
        }
        match ListenLabel::parse(&owner, label, value, place(container, label)) {
            Ok(label) => valid.push(label),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    (valid, mistakes)
}

fn too_many(container: &Container, label: &str) -> Diagnostic {
    let message = format!(
        "this container has more than {LABELS_MAX} such labels; this one and those after it are ignored"
    );
    Diagnostic::new(place(container, label), message)
        .help("use a range of ports: ambassador.listen.8000-8100=8000")
}

impl ListenLabel {
    fn parse(
        owner: &Arc<Owner>,
        label: &str,
        value: &str,
        place: Place,
    ) -> Result<ListenLabel, Vec<Diagnostic>> {
        if label.len() + value.len() > LABEL_LEN_MAX {
            let mistake = format!("this label has more than {LABEL_LEN_MAX} bytes, so it is ignored");
            return Err(vec![Diagnostic::new(place, mistake)]);
        }
        let listen = label.strip_prefix(PREFIX).unwrap_or_default();
        let (port, options) = match value.split_once('?') {
            Some((port, options)) => (port, Some(options)),
            None => (value, None),
        };
        let mut mistakes = Vec::new();
        let port = parse_port(port, listen, &place).map_err(|mistake| mistakes.push(mistake)).ok();
        let listen =
            parse_listen(listen, Author::Label, &place).map_err(|mistake| mistakes.push(mistake)).ok();
        if let (Some(port), Some(listen)) = (port, &listen) {
            mistakes.extend(check_port(port, listen).err().map(|mistake| mistake.at(&place)));
        }
        let options = listen.as_ref().and_then(|listen| {
            let Some(text) = options else { return Some(Options::named(listen.to_string())) };
            parse_options(text, listen, Author::Label, &place)
                .map_err(|several| mistakes.extend(several))
                .ok()
        });
        match (listen, port, options) {
            (Some(listen), Some(port), Some(options)) if mistakes.is_empty() => {
                let target = Target::Docker { name: owner.id.0.clone(), port: Some(port) };
                Ok(ListenLabel { owner: owner.clone(), listen, target, options, origin: place })
            }
            _ => Err(mistakes),
        }
    }

    /// Returns the route of this label alone.
    pub(super) fn route(&self) -> Route {
        Route {
            listen: self.listen.clone(),
            targets: vec![self.target.clone()],
            options: self.options.clone(),
            origin: self.origin.clone(),
        }
    }

    /// Returns whether it is part of an open route.
    pub(super) fn is_serving(&self, policy: &Policy<'_>) -> bool {
        policy.serving.get(&self.listen).is_some_and(|route| route.targets.contains(&self.target))
    }

    /// Returns a key that sorts the oldest container first.
    pub(super) fn age(&self) -> (Option<SystemTime>, &str, &ContainerId) {
        (self.owner.created, &self.owner.name, &self.owner.id)
    }
}

fn parse_port(text: &str, listen: &str, place: &Place) -> Result<u16, Diagnostic> {
    match text.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => {
            let (text, key) = (abbreviated(text), abbreviated(listen));
            let message = format!("invalid port {text:?} of this container");
            let help = format!(
                "write the port of the service inside the container: {PREFIX}{key}=6379, options after it: ?hold=30s"
            );
            Err(Diagnostic::new(place.clone(), message).help(help))
        }
    }
}
