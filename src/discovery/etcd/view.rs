//! What we know of the keys below one prefix. Pure: listings and changes go in, endpoints come out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::api::{Change, Changes, KEYS_MAX, KeyValue, Listing};
use super::value::{self, At, Value};
use crate::address::{EndpointAddr, EndpointSpec, Identity};
use crate::discovery::dns::NAMES_MAX;

/// Goes to logs and to `status`.
const KEY_MAX: usize = 1024;

/// A name may have any number of addresses; a prefix has this many endpoints in all.
const ENDPOINTS_MAX: usize = 16_384;

#[derive(Debug)]
pub(super) struct View {
    prefix: String,
    /// All that happened up to here is in `keys`.
    revision: i64,
    /// The revision of the last listing. What the watch tells up to here is in `keys` already; after it, the watch tells
    /// everything, in order, and nothing twice.
    listed: i64,
    /// Whose revisions these are.
    cluster: Option<u64>,
    /// The error is why the value cannot be used.
    keys: BTreeMap<String, Result<Value, String>>,
    complaints: Vec<Complaint>,
}

/// A key that is no endpoint. Told once for each value it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) key: String,
    pub(super) why: String,
}

/// Whether there was something that was not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    Something,
    Nothing,
}

impl View {
    pub(super) fn new(prefix: &str) -> View {
        View {
            prefix: prefix.to_owned(),
            revision: 0,
            listed: 0,
            cluster: None,
            keys: BTreeMap::new(),
            complaints: Vec::new(),
        }
    }

    /// Forgets up to where it knows, not what: the next listing counts whatever its revision and cluster, as that of an
    /// etcd that was restored from a backup.
    pub(super) fn begin(&mut self) {
        self.revision = 0;
        self.listed = 0;
        self.cluster = None;
    }

    /// All keys, asked for when `known` was the revision. A change that came meanwhile makes the listing old; a cluster
    /// whose revision was higher before it was asked is not the one that was followed, or was restored from a backup, and
    /// that is an error: then all begins again.
    pub(super) fn listed(&mut self, listing: Listing, known: i64) -> Result<Learned, String> {
        if listing.more {
            return Err(self.too_many());
        }
        self.is_same_cluster(listing.cluster)?;
        if listing.revision < known {
            let now = listing.revision;
            return Err(format!("the revision went back from {known} to {now}: all is read anew"));
        }
        if listing.revision < self.revision {
            return Ok(Learned::Nothing);
        }
        self.revision = listing.revision;
        self.listed = listing.revision;
        let before = std::mem::take(&mut self.keys);
        for key in listing.keys {
            self.put(key, &before);
        }
        Ok(if self.keys == before { Learned::Nothing } else { Learned::Something })
    }

    /// What the last listing has told already is passed over.
    pub(super) fn heard(&mut self, Changes { changes, cluster, .. }: Changes) -> Result<(), String> {
        self.is_same_cluster(cluster)?;
        for change in changes {
            let (Change::Put(key) | Change::Deleted(key)) = &change;
            if key.changed <= self.listed {
                continue;
            }
            self.revision = self.revision.max(key.changed);
            match change {
                Change::Put(key) => {
                    let before = self.name(&key.key).and_then(|name| self.keys.remove_entry(&name));
                    self.put(key, &before.into_iter().collect());
                }
                Change::Deleted(key) => {
                    if let Some(name) = self.name(&key.key) {
                        self.keys.remove(&name);
                    }
                }
            }
        }
        if self.keys.len() > KEYS_MAX { Err(self.too_many()) } else { Ok(()) }
    }

    /// Revisions of two clusters have nothing to do with each other.
    fn is_same_cluster(&mut self, cluster: Option<u64>) -> Result<(), String> {
        let Some(now) = cluster else { return Ok(()) };
        match *self.cluster.get_or_insert(now) {
            before if before == now => Ok(()),
            _ => Err("another cluster answers: all is read anew".to_owned()),
        }
    }

    /// Up to which revision all is known.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision to watch from.
    pub(super) fn next_revision(&self) -> i64 {
        self.revision.saturating_add(1)
    }

    /// Names to be looked up.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let at = self.keys.values().flatten().map(|value| &value.at);
        let names = at.filter_map(|at| match at {
            At::Name { host, .. } => Some(host.clone()),
            At::Addr(_) => None,
        });
        names.take(NAMES_MAX).collect()
    }

    /// Of every key that can be used, in the order of the keys.
    pub(super) fn endpoints(&self, known: impl Fn(&str) -> Vec<IpAddr>) -> Vec<EndpointSpec> {
        let usable = self.keys.iter().filter_map(|(key, value)| Some((key, value.as_ref().ok()?)));
        let endpoints = usable.flat_map(|(key, value)| {
            let spec = |addr| EndpointSpec {
                weight: value.weight,
                tier: value.tier,
                ..EndpointSpec::new(EndpointAddr::Inet(addr), Identity::Key(key.clone()))
            };
            value.at.addresses(&known).into_iter().map(spec).collect::<Vec<_>>()
        });
        endpoints.take(ENDPOINTS_MAX).collect()
    }

    pub(super) fn take_complaints(&mut self) -> Vec<Complaint> {
        std::mem::take(&mut self.complaints)
    }

    fn put(
        &mut self,
        KeyValue { key, value, .. }: KeyValue,
        before: &BTreeMap<String, Result<Value, String>>,
    ) {
        let Some(name) = self.name(&key) else { return };
        let value = value::parse(&value);
        if let Err(why) = &value
            && before.get(&name) != Some(&value)
        {
            self.complaints.push(Complaint { key: name.clone(), why: why.clone() });
        }
        self.keys.insert(name, value);
    }

    /// `None` for `/a-b`, which is not below `/a`, and for what is no name.
    fn name(&self, key: &[u8]) -> Option<String> {
        let name = std::str::from_utf8(key).ok().filter(|name| name.len() <= KEY_MAX)?;
        let below = name.strip_prefix(&self.prefix)?;
        (below.is_empty() || below.starts_with('/')).then(|| name.to_owned())
    }

    fn too_many(&self) -> String {
        format!("more than {KEYS_MAX} keys begin with {}: is that the prefix of one service?", self.prefix)
    }
}

#[cfg(test)]
mod tests;
