//! The keys below one prefix. Pure: listings and changes go in, endpoints come out.

use std::collections::BTreeMap;

use super::api::{Changes, KEYS_MAX, KeyChange, KeyValue, Listing};
use super::value;
use crate::discovery::endpoint_resolver::ListedEndpoint;
use crate::ordered::CollectOrdered;

/// Bytes of a key, which is shown in logs and in `status`.
const KEY_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct KeyState {
    prefix: String,
    /// `keys` contains all changes up to this revision.
    revision: i64,
    /// The revision of the last listing. Changes of the watch up to here are ignored; later ones are complete and in order.
    listed: i64,
    /// The cluster that these revisions belong to.
    cluster: Option<u64>,
    /// The error is why the value is invalid.
    keys: BTreeMap<String, Result<ListedEndpoint, String>>,
    invalid: Vec<InvalidKey>,
}

/// A key whose value is not an endpoint. Reported once for each value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvalidKey {
    pub(super) key: String,
    pub(super) why: String,
}

/// Whether a listing differs from the known keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Changed,
    Unchanged,
}

/// Why the keys have to be read again from the start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeysError {
    #[error("more than {KEYS_MAX} keys begin with {prefix}: is that the prefix of one service?")]
    TooMany { prefix: String },
    #[error("the revision went back from {before} to {now}: reading all keys again")]
    RevisionWentBack { before: i64, now: i64 },
    #[error("the response is from another cluster: reading all keys again")]
    OtherCluster,
}

impl KeyState {
    pub(super) fn new(prefix: &str) -> KeyState {
        KeyState {
            prefix: prefix.to_owned(),
            revision: 0,
            listed: 0,
            cluster: None,
            keys: BTreeMap::new(),
            invalid: Vec::new(),
        }
    }

    /// Resets the revision, but keeps the keys: the next listing is applied whatever its revision and cluster, such as that of an
    /// etcd that was restored from a backup.
    pub(super) fn reset_revision(&mut self) {
        self.revision = 0;
        self.listed = 0;
        self.cluster = None;
    }

    /// Applies a listing that was requested at revision `before`. A listing that is older than the last change is ignored. A
    /// revision below `before` is an error: the cluster is not the one that was followed, or was restored from a backup.
    pub(super) fn apply_listing(&mut self, listing: Listing, before: i64) -> Result<Comparison, KeysError> {
        if listing.more {
            return Err(self.too_many());
        }
        self.check_cluster(listing.cluster)?;
        if listing.revision < before {
            return Err(KeysError::RevisionWentBack { before, now: listing.revision });
        }
        if listing.revision < self.revision {
            return Ok(Comparison::Unchanged);
        }
        self.revision = listing.revision;
        self.listed = listing.revision;
        let before = std::mem::take(&mut self.keys);
        for key in listing.keys {
            self.put(key, &before);
        }
        Ok(if self.keys == before { Comparison::Unchanged } else { Comparison::Changed })
    }

    /// Applies changes of the watch; those that the last listing contains are ignored.
    pub(super) fn apply_changes(
        &mut self,
        Changes { changes, cluster, .. }: Changes,
    ) -> Result<(), KeysError> {
        self.check_cluster(cluster)?;
        for change in changes {
            let (KeyChange::Put(key) | KeyChange::Deleted(key)) = &change;
            if key.changed <= self.listed {
                continue;
            }
            self.revision = self.revision.max(key.changed);
            match change {
                KeyChange::Put(key) => {
                    let before = self.name(&key.key).and_then(|name| self.keys.remove_entry(&name));
                    self.put(key, &before.into_iter().collect_ordered());
                }
                KeyChange::Deleted(key) => {
                    if let Some(name) = self.name(&key.key) {
                        self.keys.remove(&name);
                    }
                }
            }
        }
        if self.keys.len() > KEYS_MAX { Err(self.too_many()) } else { Ok(()) }
    }

    /// Revisions of two clusters cannot be compared.
    fn check_cluster(&mut self, cluster: Option<u64>) -> Result<(), KeysError> {
        let Some(now) = cluster else { return Ok(()) };
        match *self.cluster.get_or_insert(now) {
            before if before == now => Ok(()),
            _ => Err(KeysError::OtherCluster),
        }
    }

    /// Returns the revision up to which all changes are applied.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// Returns the revision to watch from.
    pub(super) fn next_revision(&self) -> i64 {
        self.revision.saturating_add(1)
    }

    /// Returns the endpoint of every valid key, in the order of the keys.
    pub(super) fn endpoints(&self) -> Vec<ListedEndpoint> {
        self.keys.values().flatten().cloned().collect()
    }

    pub(super) fn take_invalid(&mut self) -> Vec<InvalidKey> {
        std::mem::take(&mut self.invalid)
    }

    fn put(
        &mut self,
        KeyValue { key, value, .. }: KeyValue,
        before: &BTreeMap<String, Result<ListedEndpoint, String>>,
    ) {
        let Some(name) = self.name(&key) else { return };
        let endpoint = value::parse(&name, &value);
        if let Err(why) = &endpoint
            && before.get(&name) != Some(&endpoint)
        {
            self.invalid.push(InvalidKey { key: name.clone(), why: why.clone() });
        }
        self.keys.insert(name, endpoint);
    }

    /// Returns the name of a key; `None` for `/a-b`, which is not below `/a`, and for a key that is too long or not UTF-8.
    fn name(&self, key: &[u8]) -> Option<String> {
        let name = std::str::from_utf8(key).ok().filter(|name| name.len() <= KEY_MAX)?;
        let below = name.strip_prefix(&self.prefix)?;
        (below.is_empty() || below.starts_with('/')).then(|| name.to_owned())
    }

    fn too_many(&self) -> KeysError {
        KeysError::TooMany { prefix: self.prefix.clone() }
    }
}

#[cfg(test)]
mod tests;
