//! Entries as keys of etcd, all attached to one lease: they expire with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::stream::{self, StreamExt};
use hyper::StatusCode;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::CONCURRENT_MAX;
use super::refusals::Refusals;
use crate::config::etcd::EtcdAccess;
use crate::config::hosts::Hosts;
use crate::discovery::etcd::api::{encoded, number};
use crate::discovery::etcd::client::{Client, EtcdError};
use crate::ordered::CollectOrdered;
use crate::register::desired::Entries;
use crate::route::EtcdKeys;

pub(in crate::register) struct Etcd {
    members: Vec<Client>,
    /// The index of the current member, modulo their number.
    turn: usize,
    prefix: String,
    ttl: Duration,
    lease: Option<i64>,
    /// The keys of the lease; the value is `None` while it is not known.
    registered: BTreeMap<String, Option<String>>,
    refused: Refusals,
}

enum KeyUpdate {
    Put(String),
    Delete,
}

impl KeyUpdate {
    /// Returns its identifier in [`Refusals`].
    fn entry(&self, key: &str) -> String {
        match self {
            KeyUpdate::Put(value) => format!("{key}={value}"),
            KeyUpdate::Delete => key.to_owned(),
        }
    }
}

impl Etcd {
    pub(super) fn new(keys: EtcdKeys, access: &EtcdAccess, ttl: Duration) -> Etcd {
        let EtcdKeys { tls, members, prefix } = keys;
        // The members are given by the operator, so the credentials are for them.
        let access = &EtcdAccess { hosts: Hosts::of_etcd(tls, &members), ..access.clone() };
        // Leaves time to renew the lease with another member.
        let client = |member: &String| Client::new(member, tls, access).timeout(ttl / 4);
        let members = members.iter().map(client).collect();
        let (registered, refused) = (BTreeMap::new(), Refusals::default());
        Etcd { members, turn: 0, prefix, ttl, lease: None, registered, refused }
    }

    /// Renews the lease and reads its keys, or grants a new lease.
    pub(super) async fn keep_alive(&mut self) -> Result<(), EtcdError> {
        let renewed = self.renew().await;
        self.or_next_member(renewed)
    }

    pub(super) async fn sync(&mut self, desired: &Entries) -> Result<(), EtcdError> {
        let written = self.write(desired).await;
        self.or_next_member(written)
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.refused.next_retry()
    }

    /// Revokes the lease. Tries each member once, because the time is limited.
    pub(super) async fn withdraw_all(&mut self) -> Result<(), EtcdError> {
        let Some(lease) = self.lease else { return Ok(()) };
        let mut result = Ok(());
        for _ in 0..self.members.len() {
            let revoked = self.call("/v3/lease/revoke", &json!({ "ID": lease.to_string() })).await;
            result = self.or_next_member(revoked.map(|_| ()));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn renew(&mut self) -> Result<(), EtcdError> {
        let Some(lease) = self.lease else { return self.grant().await };
        let id = lease.to_string();
        let renewed = self.call("/v3/lease/keepalive", &json!({ "ID": id })).await?;
        // A lease that has expired has no TTL.
        if renewed.pointer("/result/TTL").and_then(number).is_none_or(|ttl| ttl <= 0) {
            tracing::warn!("the lease has expired; registering all entries again");
            return self.grant().await;
        }
        let lease = self.call("/v3/lease/timetolive", &json!({ "ID": id, "keys": true })).await?;
        self.compare(&keys(&lease));
        Ok(())
    }

    async fn grant(&mut self) -> Result<(), EtcdError> {
        // Keys of an earlier lease are attached to this one when they are put again.
        self.lease = None;
        self.registered.clear();
        let path = "/v3/lease/grant";
        let granted = self.call(path, &json!({ "TTL": self.ttl.as_secs().to_string() })).await?;
        self.lease = Some(granted.get("ID").and_then(number).ok_or(EtcdError::Unexpected { path })?);
        Ok(())
    }

    /// Drops the keys that were removed from the lease by others; keys that are new to us have an unknown value.
    fn compare(&mut self, keys: &BTreeSet<String>) {
        self.registered.retain(|key, _| keys.contains(key));
        for key in keys {
            self.registered.entry(key.clone()).or_default();
        }
    }

    /// Writes each key by itself instead of in transactions, in which one refused key would fail the others.
    async fn write(&mut self, desired: &Entries) -> Result<(), EtcdError> {
        let (Some(lease), Some(member)) = (self.lease, self.member().cloned()) else { return Ok(()) };
        let desired =
            desired.iter().map(|(entry, addr)| (format!("{}/{entry}", self.prefix), addr.to_string()));
        let updates: BTreeMap<_, _> = updates(&self.registered, &desired.collect_ordered());
        let entries: BTreeSet<String> =
            updates.iter().map(|(key, update)| update.entry(key)).collect_ordered();
        self.refused.retain(|entry| entries.contains(entry));
        let is_due = |(key, update): &(String, KeyUpdate)| self.refused.is_due(&update.entry(key));
        let mut due: Vec<_> = updates.into_iter().filter(is_due).collect();
        // Deletions first: a removed container must not be found while new ones are registered.
        due.sort_by_key(|(_, update)| matches!(update, KeyUpdate::Put(_)));
        for (key, _) in due.iter().filter(|(_, update)| matches!(update, KeyUpdate::Put(_))) {
            // Not known until the response.
            self.registered.insert(key.clone(), None);
        }
        let apply = |(key, update): (String, KeyUpdate)| {
            let member = &member;
            async move { (apply(member, &key, &update, lease).await, key, update) }
        };
        let mut applied = stream::iter(due.into_iter().map(apply)).buffer_unordered(CONCURRENT_MAX);
        while let Some((result, key, update)) = applied.next().await {
            match result {
                Ok(()) => self.applied(&key, &update),
                Err(error) if is_key_specific(&error) => {
                    self.refused.refused(&update.entry(&key), &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn applied(&mut self, key: &str, update: &KeyUpdate) {
        self.refused.accepted(&update.entry(key));
        match update {
            KeyUpdate::Put(value) => {
                tracing::info!(key, value, "registered");
                self.registered.insert(key.to_owned(), Some(value.clone()));
            }
            KeyUpdate::Delete => {
                tracing::info!(key, "withdrawn");
                self.registered.remove(key);
            }
        }
    }

    async fn call(&self, path: &str, body: &Value) -> Result<Value, EtcdError> {
        match self.member() {
            Some(member) => member.call(path, body).await,
            None => Err(EtcdError::Unexpected { path: "no members" }),
        }
    }

    fn member(&self) -> Option<&Client> {
        self.members.get(self.turn % self.members.len().max(1))
    }

    /// Selects the next member after an error.
    fn or_next_member(&mut self, result: Result<(), EtcdError>) -> Result<(), EtcdError> {
        if result.is_err() {
            self.turn += 1;
        }
        result
    }
}

/// Returns the updates that lead from the registered to the desired keys.
fn updates(
    registered: &BTreeMap<String, Option<String>>,
    desired: &BTreeMap<String, String>,
) -> BTreeMap<String, KeyUpdate> {
    let removed = registered
        .keys()
        .filter(|key| !desired.contains_key(*key))
        .map(|key| (key.clone(), KeyUpdate::Delete));
    let new =
        desired.iter().filter(|(key, value)| registered.get(*key).and_then(Option::as_ref) != Some(value));
    removed.chain(new.map(|(key, value)| (key.clone(), KeyUpdate::Put(value.clone())))).collect_ordered()
}

async fn apply(member: &Client, key: &str, update: &KeyUpdate, lease: i64) -> Result<(), EtcdError> {
    let (path, body) = request(key, update, lease);
    member.call::<IgnoredAny>(path, &body).await.map(|_| ())
}

fn request(key: &str, update: &KeyUpdate, lease: i64) -> (&'static str, Value) {
    let key = encoded(key);
    match update {
        KeyUpdate::Put(value) => {
            ("/v3/kv/put", json!({ "key": key, "value": encoded(value), "lease": lease.to_string() }))
        }
        KeyUpdate::Delete => ("/v3/kv/deleterange", json!({ "key": key })),
    }
}

/// Permissions are granted by key. All other refusals affect every key: no leader, no space, an expired lease.
fn is_key_specific(error: &EtcdError) -> bool {
    matches!(error, EtcdError::Http(error) if error.refusal().is_some_and(|(status, _)| status == StatusCode::FORBIDDEN))
}

fn keys(lease: &Value) -> BTreeSet<String> {
    let keys = lease.get("keys").and_then(Value::as_array).into_iter().flatten();
    let text = |key: &Value| String::from_utf8(BASE64.decode(key.as_str()?.as_bytes()).ok()?).ok();
    keys.filter_map(text).collect_ordered()
}

/// Fuzz target: reads the keys of a lease.
pub(super) fn read_any(response: &[u8]) {
    if let Ok(lease) = serde_json::from_slice(response) {
        let _ = keys(&lease);
    }
}

#[cfg(test)]
mod tests;
