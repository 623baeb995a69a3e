//! Labels of images, and replicas.

use super::*;
use crate::discovery::docker::fixtures::{container, id, labelled, service, with_image_labels};

#[test]
fn label_of_the_image_is_not_a_label_of_the_container() {
    let labels = [("own", "1"), ("changed", "1"), ("image", "1")];
    let container =
        with_image_labels(labelled(container("x", 2), &labels), Some(&[("changed", "2"), ("image", "1")]));
    assert_eq!(container.labels.keys().collect::<Vec<_>>(), ["changed", "own"]);
    assert_eq!(container.inherited.keys().collect::<Vec<_>>(), ["image"]);
    let unknown = with_image_labels(labelled(container.clone(), &labels), None);
    assert_eq!((unknown.labels.len(), unknown.image.is_known), (0, false));
}

#[test]
fn replicas_have_the_same_service_or_else_the_same_image() {
    let (one, two) = (id("a"), id("b"));
    let swarm = |container| labelled(container, &[("com.docker.swarm.service.id", "s")]);
    let image = |name: &str| Image { id: name.to_owned(), is_known: true };
    let of = |container: Container, name: &str| Container { image: image(name), ..container };
    let plain = || container("x", 2);
    for (this, that, are_replicas) in [
        (of(plain(), "i"), of(plain(), "i"), true),
        (of(plain(), "i"), of(plain(), "j"), false),
        (of(plain(), ""), of(plain(), ""), false),
        (of(service("x", 2, "p", "s"), "i"), of(service("y", 3, "p", "s"), "j"), true),
        (of(service("x", 2, "p", "s"), "i"), of(service("y", 3, "q", "s"), "i"), false),
        (of(service("x", 2, "p", "s"), "i"), of(plain(), "i"), false),
        (of(swarm(plain()), "i"), of(swarm(plain()), "j"), true),
    ] {
        assert_eq!(this.replica_group(&one) == that.replica_group(&two), are_replicas, "{this:?}\n{that:?}");
    }
}
