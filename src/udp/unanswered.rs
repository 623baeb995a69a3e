//! The flows without a response, in the order in which they began. Pure.
//!
//! The source address of a datagram may be forged. These flows are evicted, oldest first, when the limit of flows is reached, and
//! one source may only have a part of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::client_net::ClientNet;

/// Flows by their serial numbers, which increase, with a value for each. Each operation takes O(log n).
#[derive(Debug)]
pub(crate) struct Unanswered<T> {
    all: BTreeMap<u64, (ClientNet, T)>,
    by_source: HashMap<ClientNet, BTreeSet<u64>>,
}

impl<T> Default for Unanswered<T> {
    fn default() -> Unanswered<T> {
        Unanswered { all: BTreeMap::new(), by_source: HashMap::new() }
    }
}

impl<T> Unanswered<T> {
    pub(crate) fn add(&mut self, serial: u64, source: ClientNet, value: T) {
        self.all.insert(serial, (source, value));
        self.by_source.entry(source).or_default().insert(serial);
    }

    /// Removes a flow that has a response or has ended.
    pub(crate) fn remove(&mut self, serial: u64) {
        let Some((source, _)) = self.all.remove(&serial) else { return };
        if let Some(serials) = self.by_source.get_mut(&source) {
            serials.remove(&serial);
            if serials.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    /// Returns the value of the oldest flow.
    pub(crate) fn oldest(&self) -> Option<&T> {
        self.all.values().next().map(|(_, value)| value)
    }

    /// Returns the value of the oldest flow from `source`, if that has `max` flows or more.
    pub(crate) fn oldest_of(&self, source: ClientNet, max: usize) -> Option<&T> {
        let serials = self.by_source.get(&source).filter(|serials| serials.len() >= max)?;
        serials.first().and_then(|serial| self.all.get(serial)).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(ip: &str) -> ClientNet {
        ClientNet::of(ip.parse().unwrap())
    }

    #[test]
    fn oldest_flow_is_found_among_all_and_among_those_of_one_source() {
        let mut unanswered = Unanswered::default();
        for (serial, ip) in (1..).zip(["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.1"]) {
            unanswered.add(serial, source(ip), serial);
        }
        assert_eq!(unanswered.oldest(), Some(&1));
        assert_eq!(unanswered.oldest_of(source("192.0.2.1"), 2), Some(&2));
        assert_eq!(unanswered.oldest_of(source("2001:db8::9"), 2), Some(&1), "one prefix is one source");
        assert_eq!(unanswered.oldest_of(source("192.0.2.1"), 3), None);
        unanswered.remove(1);
        assert_eq!(unanswered.oldest(), Some(&2));
        assert_eq!(unanswered.oldest_of(source("2001:db8::2"), 2), None);
        (1..=4).for_each(|serial| unanswered.remove(serial));
        assert_eq!(unanswered.oldest(), None);
        assert!(unanswered.by_source.is_empty());
    }
}
