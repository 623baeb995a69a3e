//! Routes that Docker no longer reports, kept for as long as their sessions may be held. Pure.
//!
//! `docker compose up` recreates a container by removing the old one first. Without the grace period its labelled or named
//! route would close in between and refuse connections. With it the route stays open without an endpoint and holds them.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::diagnostic::Place;
use crate::route::{LABEL_HOLD_MAX, Listen, RouteTable};

/// The end of each grace period.
#[derive(Clone, Debug, Default)]
pub(super) struct RemovalGrace {
    deadlines: BTreeMap<Listen, Instant>,
}

impl RemovalGrace {
    /// Returns whether the grace period of this route has ended.
    pub(super) fn has_ended(&self, listen: &Listen, now: Instant) -> bool {
        self.deadlines.get(listen).is_some_and(|deadline| *deadline <= now)
    }

    /// Adds to `new` the routes that were removed since `old` and are within their grace period: their hold, but at most
    /// [`LABEL_HOLD_MAX`].
    pub(super) fn extend(&mut self, old: &RouteTable, new: &mut RouteTable, now: Instant) {
        self.deadlines.retain(|listen, _| !new.contains_key(listen));
        for (listen, route) in old {
            // Ordered by cost: most routes stay, and a lookup finds them.
            if !is_from_docker(&route.origin)
                || new.contains_key(listen)
                || new.values().any(|other| other.excludes(route))
            {
                continue;
            }
            let deadline =
                *self.deadlines.entry(listen.clone()).or_insert(now + route.options.hold.min(LABEL_HOLD_MAX));
            if now < deadline {
                new.insert(listen.clone(), route.clone());
            }
        }
        self.deadlines.retain(|listen, _| new.contains_key(listen));
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|next| next <= now)
    }

    /// Returns when the next grace period ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.values().min().copied()
    }
}

/// Returns whether Docker's containers request the route. All other routes close as soon as they are removed from the place
/// in which they are written.
pub(super) fn is_from_docker(origin: &Place) -> bool {
    matches!(origin, Place::Label { .. } | Place::Link(_) | Place::Name(_))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::route::{PortRange, Protocol, Route};

    fn table(port: u16, origin: Place) -> RouteTable {
        let listen = Listen::Inet { protocol: Protocol::Tcp, ip: None, ports: PortRange::single(port) };
        RouteTable::from([(listen.clone(), Route::new(listen, Vec::new(), origin))])
    }

    fn labelled(port: u16) -> RouteTable {
        table(port, Place::Label { container: "web".to_owned(), label: "x".to_owned() })
    }

    /// `new`, extended by what is within the grace period.
    fn extended(grace: &mut RemovalGrace, old: &RouteTable, new: &RouteTable, now: Instant) -> RouteTable {
        let mut table = new.clone();
        grace.extend(old, &mut table, now);
        table
    }

    #[test]
    fn route_that_docker_no_longer_reports_stays_for_its_hold() {
        let (mut grace, began) = (RemovalGrace::default(), Instant::now());
        let (hold, none) = (crate::route::HOLD_DEFAULT, RouteTable::new());
        let kept = extended(&mut grace, &labelled(1), &none, began);
        assert_eq!(kept, labelled(1));
        assert_eq!(grace.next(), Some(began + hold));
        let kept = extended(&mut grace, &kept, &none, began + hold - Duration::from_millis(1));
        assert_eq!(kept, labelled(1), "a second round does not restart the period");
        let gone = extended(&mut grace, &kept, &none, began + hold);
        assert_eq!((gone, grace.next()), (none, None));
    }

    #[test]
    fn grace_period_is_at_most_a_minute() {
        let (mut grace, began) = (RemovalGrace::default(), Instant::now());
        let mut old = labelled(1);
        old.values_mut().for_each(|route| route.options.hold = Duration::from_secs(365 * 24 * 3600));
        extended(&mut grace, &old, &RouteTable::new(), began);
        assert_eq!(grace.next(), Some(began + Duration::from_secs(60)));
        let listen = old.keys().next().unwrap();
        assert!(!grace.has_ended(listen, began) && grace.has_ended(listen, began + LABEL_HOLD_MAX));
    }

    #[test]
    fn name_that_another_route_takes_ends_the_grace_period() {
        let (mut grace, now) = (RemovalGrace::default(), Instant::now());
        let mut new = table(2, Place::Built);
        new.values_mut().for_each(|route| route.options.name = "1".to_owned());
        assert_eq!(extended(&mut grace, &labelled(1), &new, now), new);
    }

    #[test]
    fn route_that_docker_reports_again_has_no_deadline() {
        let (mut grace, now) = (RemovalGrace::default(), Instant::now());
        let kept = extended(&mut grace, &labelled(1), &RouteTable::new(), now);
        extended(&mut grace, &kept, &labelled(1), now);
        assert_eq!(grace.next(), None);
    }

    #[test]
    fn written_route_closes_at_once_and_a_port_that_another_route_takes_ends_the_grace_period() {
        let (mut grace, now) = (RemovalGrace::default(), Instant::now());
        let none = RouteTable::new();
        assert_eq!(extended(&mut grace, &table(1, Place::Built), &none, now), none);
        let listen = Listen::Inet {
            protocol: Protocol::Tcp,
            ip: Some([127, 0, 0, 1].into()),
            ports: PortRange { first: 1, last: 9 },
        };
        let new = RouteTable::from([(listen.clone(), Route::new(listen, Vec::new(), Place::Built))]);
        assert_eq!(extended(&mut grace, &labelled(1), &new, now), new);
    }
}
