//! What we know of the keys below one prefix. Pure: listings and changes go in, endpoints come out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::api::{Change, KEYS_MAX, KeyValue, Listing};
use super::value::{self, At, Value};
use crate::cluster::{EndpointAddr, EndpointSpec, Identity};
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
        View { prefix: prefix.to_owned(), revision: 0, keys: BTreeMap::new(), complaints: Vec::new() }
    }

    /// Forgets up to where it knows, not what: the next listing counts whatever its revision, as that of an etcd that
    /// was restored from a backup.
    pub(super) fn begin(&mut self) {
        self.revision = 0;
    }

    /// All keys. One that is older than what is known already is of no use.
    pub(super) fn listed(&mut self, listing: Listing) -> Result<Learned, String> {
        if listing.more {
            return Err(self.too_many());
        }
        if listing.revision < self.revision {
            return Ok(Learned::Nothing);
        }
        self.revision = listing.revision;
        let before = std::mem::take(&mut self.keys);
        for key in listing.keys {
            self.put(key, &before);
        }
        Ok(if self.keys == before { Learned::Nothing } else { Learned::Something })
    }

    /// What a listing that came meanwhile has told already is passed over.
    pub(super) fn heard(&mut self, changes: Vec<Change>) -> Result<(), String> {
        let mut last = self.revision;
        for change in changes {
            let (Change::Put(key) | Change::Deleted(key)) = &change;
            if key.changed <= self.revision {
                continue;
            }
            last = last.max(key.changed);
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
        self.revision = last;
        if self.keys.len() > KEYS_MAX { Err(self.too_many()) } else { Ok(()) }
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
