//! Routes that Docker tells us: labelled containers, `-name`, and this container's own links. Pure.

use super::containers::Containers;
use crate::diagnostic::Diagnostic;
use crate::route::Route;

/// Routes of every running container labelled `ambassador.listen.<LISTEN>=<PORT>[?options]`. One bad label never
/// removes another route. Containers with the same listener (replicas of a service) are endpoints of one route.
pub fn labelled(_containers: &Containers) -> (Vec<Route>, Vec<Diagnostic>) {
    (Vec::new(), Vec::new())
}

/// Routes for the links of our own container: each exposed port of each link's target.
pub fn own_links(_containers: &Containers) -> (Vec<Route>, Vec<Diagnostic>) {
    (Vec::new(), Vec::new())
}

/// Routes for `-name NAME`...: each exposed port of each named container. Two names with one port are a mistake.
pub fn named(_names: &[String], _containers: &Containers) -> (Vec<Route>, Vec<Diagnostic>) {
    (Vec::new(), Vec::new())
}
