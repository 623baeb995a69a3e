//! The flows without a response, in the order in which they began. Pure.
//!
//! The source address of a datagram may be forged. These flows are evicted, oldest first, when the limit of flows is reached, and
//! one source may only have a part of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::flow::Key;
use crate::client_net::ClientNet;

/// Flows by their serial numbers, which increase. Each operation takes O(log n).
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    all: BTreeMap<u64, Key>,
    by_source: HashMap<ClientNet, BTreeSet<u64>>,
}

impl Unanswered {
    pub(super) fn add(&mut self, serial: u64, key: Key) {
        self.all.insert(serial, key);
        self.by_source.entry(source(key)).or_default().insert(serial);
    }

    /// Removes a flow that has a response or has ended.
    pub(super) fn remove(&mut self, serial: u64) {
        let Some(key) = self.all.remove(&serial) else { return };
        let source = source(key);
        if let Some(serials) = self.by_source.get_mut(&source) {
            serials.remove(&serial);
            if serials.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    /// Returns the oldest flow.
    pub(super) fn oldest(&self) -> Option<Key> {
        self.all.values().next().copied()
    }

    /// Returns the oldest flow from the source of `key`, if that source has `max` flows or more.
    pub(super) fn oldest_like(&self, key: Key, max: usize) -> Option<Key> {
        let serials = self.by_source.get(&source(key)).filter(|serials| serials.len() >= max)?;
        serials.first().and_then(|serial| self.all.get(serial)).copied()
    }
}

fn source(key: Key) -> ClientNet {
    ClientNet::of(key.client.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: &str) -> Key {
        Key { client: client.parse().unwrap(), local: None }
    }

    #[test]
    fn oldest_flow_is_found_among_all_and_among_those_of_one_source() {
        let mut unanswered = Unanswered::default();
        let keys = ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.1:2"].map(key);
        for (serial, key) in (1..).zip(keys) {
            unanswered.add(serial, key);
        }
        assert_eq!(unanswered.oldest(), Some(keys[0]));
        assert_eq!(unanswered.oldest_like(keys[3], 2), Some(keys[1]));
        assert_eq!(
            unanswered.oldest_like(key("[2001:db8::9]:9"), 2),
            Some(keys[0]),
            "one prefix is one source"
        );
        assert_eq!(unanswered.oldest_like(keys[3], 3), None);
        unanswered.remove(1);
        assert_eq!(unanswered.oldest(), Some(keys[1]));
        assert_eq!(unanswered.oldest_like(keys[2], 2), None);
        (1..=4).for_each(|serial| unanswered.remove(serial));
        assert_eq!(unanswered.oldest(), None);
        assert!(unanswered.by_source.is_empty());
    }
}
