//! Routes that Docker no longer tells of, kept for as long as their sessions would be held. Pure.
//!
//! `docker compose up` recreates a container by removing the old one first. Its labelled or named route would close in
//! between and consumers be refused; kept open without an endpoint, it holds them.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::diagnostic::Place;
use crate::route::{LABEL_HOLD_MAX, Listen, RouteTable};

/// When each route that lingers closes.
#[derive(Debug, Default)]
pub(super) struct Linger {
    deadlines: BTreeMap<Listen, Instant>,
}

impl Linger {
    /// Whether this route has lingered for its time.
    pub(super) fn is_over(&self, listen: &Listen, now: Instant) -> bool {
        self.deadlines.get(listen).is_some_and(|deadline| *deadline <= now)
    }

    /// Adds to `new` what left it since `old` and may linger: for its hold, but no longer than [`LABEL_HOLD_MAX`].
    pub(super) fn keep(&mut self, old: &RouteTable, new: &mut RouteTable, now: Instant) {
        self.deadlines.retain(|listen, _| !new.contains_key(listen));
        for (listen, route) in old {
            // Those that stay are most, and found at once.
            if !is_docker(&route.origin)
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

    /// When the next route closes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.values().min().copied()
    }
}

/// Routes that were written out close when they are taken out: their author said so.
pub(super) fn is_docker(origin: &Place) -> bool {
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

    #[test]
    fn a_route_that_docker_no_longer_tells_of_stays_for_its_hold() {
        let (mut linger, began) = (Linger::default(), Instant::now());
        let hold = crate::route::HOLD_DEFAULT;
        let mut kept = RouteTable::new();
        linger.keep(&labelled(1), &mut kept, began);
        assert_eq!(kept, labelled(1));
        assert_eq!(linger.next(), Some(began + hold));
        let mut still = RouteTable::new();
        linger.keep(&kept, &mut still, began + hold - Duration::from_millis(1));
        assert_eq!(still, labelled(1), "asked again, it does not begin anew");
        let mut gone = RouteTable::new();
        linger.keep(&still, &mut gone, began + hold);
        assert_eq!((gone, linger.next()), (RouteTable::new(), None));
    }

    #[test]
    fn no_hold_keeps_a_listener_for_longer_than_a_minute() {
        let (mut linger, began) = (Linger::default(), Instant::now());
        let mut old = labelled(1);
        old.values_mut().for_each(|route| route.options.hold = Duration::from_secs(365 * 24 * 3600));
        let mut kept = RouteTable::new();
        linger.keep(&old, &mut kept, began);
        assert_eq!(linger.next(), Some(began + Duration::from_secs(60)));
        let listen = old.keys().next().unwrap();
        assert!(!linger.is_over(listen, began) && linger.is_over(listen, began + LABEL_HOLD_MAX));
    }

    #[test]
    fn a_name_that_another_route_has_now_is_given_up() {
        let (mut linger, now) = (Linger::default(), Instant::now());
        let mut new = table(2, Place::Built);
        new.values_mut().for_each(|route| route.options.name = "1".to_owned());
        let wanted = new.clone();
        linger.keep(&labelled(1), &mut new, now);
        assert_eq!(new, wanted);
    }

    #[test]
    fn one_that_comes_back_lingers_no_more() {
        let (mut linger, now) = (Linger::default(), Instant::now());
        let mut kept = RouteTable::new();
        linger.keep(&labelled(1), &mut kept, now);
        let mut back = labelled(1);
        linger.keep(&kept, &mut back, now);
        assert_eq!(linger.next(), None);
    }

    #[test]
    fn a_written_route_closes_at_once_and_a_port_that_is_wanted_is_given_up() {
        let (mut linger, now) = (Linger::default(), Instant::now());
        let mut new = RouteTable::new();
        linger.keep(&table(1, Place::Built), &mut new, now);
        assert_eq!(new, RouteTable::new());
        let listen = Listen::Inet {
            protocol: Protocol::Tcp,
            ip: Some([127, 0, 0, 1].into()),
            ports: PortRange { first: 1, last: 9 },
        };
        let wanted = RouteTable::from([(listen.clone(), Route::new(listen, Vec::new(), Place::Built))]);
        let mut new = wanted.clone();
        linger.keep(&labelled(1), &mut new, now);
        assert_eq!(new, wanted);
    }
}
