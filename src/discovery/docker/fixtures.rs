//! The containers that tests are made of.

use std::collections::BTreeMap;

use super::model::{Attachment, Container, ContainerId, Containers, Image};
use crate::route::{Protocol, Route};

/// Returns an ID of 64 digits that starts with this.
pub(crate) fn id(beginning: &str) -> ContainerId {
    ContainerId(format!("{beginning:0<64}"))
}

/// Returns a running container on the network `bridge` (ID `bridge-id`) at 172.17.0.`last`, exposing 6379/tcp.
pub(crate) fn container(name: &str, last: u8) -> Container {
    Container {
        name: name.to_owned(),
        image: Image { id: "sha256:one".to_owned(), is_known: true },
        running: true,
        networks: BTreeMap::from([on("bridge", [172, 17, 0, last])]),
        exposed: vec![(6379, Protocol::Tcp)],
        ..Container::default()
    }
}

pub(crate) fn on(network: &str, ip: [u8; 4]) -> (String, Attachment) {
    let attachment = Attachment { name: network.to_owned(), ipv4: Some(ip.into()), ipv6: None };
    (format!("{network}-id"), attachment)
}

pub(crate) fn labelled(mut container: Container, labels: &[(&str, &str)]) -> Container {
    container.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    container
}

/// Returns these containers, by the prefixes of their IDs; `0` is our own.
pub(crate) fn engine<const N: usize>(containers: [(&str, Container); N]) -> Containers {
    let by_id: BTreeMap<ContainerId, Container> = containers.into_iter().map(|(n, c)| (id(n), c)).collect();
    let own_id = Some(id("0")).filter(|own| by_id.contains_key(own));
    Containers { own_id, by_id, ..Containers::default() }
}

pub(crate) fn service(name: &str, last: u8, project: &str, service: &str) -> Container {
    labelled(
        container(name, last),
        &[("com.docker.compose.project", project), ("com.docker.compose.service", service)],
    )
}

/// Separates the labels of this image; `None` is an image that cannot be inspected.
pub(crate) fn with_image_labels(mut container: Container, image: Option<&[(&str, &str)]>) -> Container {
    let image = image
        .map(|labels| labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
    container.inherit(image.as_ref());
    container
}

pub(crate) fn exposing(mut of: Container, exposed: &[(u16, Protocol)]) -> Container {
    of.exposed = exposed.to_vec();
    of
}

pub(crate) fn printed(routes: &[Route]) -> Vec<String> {
    routes.iter().map(ToString::to_string).collect()
}
