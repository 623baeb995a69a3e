//! Entries as keys of etcd, all under one lease: they end with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::stream::{self, StreamExt};
use hyper::StatusCode;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::refusals::Refusals;
use super::registry::AT_ONCE;
use super::wanted::Entries;
use crate::config::etcd::EtcdAccess;
use crate::config::hosts::Hosts;
use crate::discovery::etcd::api::{encoded, number};
use crate::discovery::etcd::client::{Client, EtcdError};
use crate::route::EtcdKeys;

pub(super) struct Etcd {
    members: Vec<Client>,
    /// The one that is asked.
    turn: usize,
    prefix: String,
    ttl: Duration,
    lease: Option<i64>,
    /// The keys of the lease, each with the value that we know it has.
    has: BTreeMap<String, Option<String>>,
    refused: Refusals,
}

enum Step {
    Put(String),
    Delete,
}

impl Step {
    /// For [`Refusals`].
    fn entry(&self, key: &str) -> String {
        match self {
            Step::Put(value) => format!("{key}={value}"),
            Step::Delete => key.to_owned(),
        }
    }
}

impl Etcd {
    pub(super) fn new(keys: EtcdKeys, access: &EtcdAccess, ttl: Duration) -> Etcd {
        let EtcdKeys { tls, members, prefix } = keys;
        // They are the operator's own words.
        let access = &EtcdAccess { hosts: Hosts::of_etcd(tls, &members), ..access.clone() };
        // A member that hangs must leave time to renew the lease with another.
        let client = |member: &String| Client::new(member, tls, access).patience(ttl / 4);
        let members = members.iter().map(client).collect();
        let (has, refused) = (BTreeMap::new(), Refusals::default());
        Etcd { members, turn: 0, prefix, ttl, lease: None, has, refused }
    }

    /// Renews the lease, or takes a new one; and learns which keys it has.
    pub(super) async fn keep_alive(&mut self) -> Result<(), String> {
        let kept = self.renew().await;
        self.or_next_member(kept)
    }

    pub(super) async fn sync(&mut self, wanted: &Entries) -> Result<(), String> {
        let written = self.write(wanted).await;
        self.or_next_member(written)
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.refused.next()
    }

    pub(super) async fn end(&mut self) -> Result<(), String> {
        let Some(lease) = self.lease else { return Ok(()) };
        // Each member in turn: there is no time for more.
        let mut ended = Ok(());
        for _ in 0..self.members.len() {
            let revoked = self.ask("/v3/lease/revoke", &json!({ "ID": lease.to_string() })).await;
            ended = self.or_next_member(revoked.map(|_| ()));
            if ended.is_ok() {
                break;
            }
        }
        ended
    }

    async fn renew(&mut self) -> Result<(), EtcdError> {
        let Some(lease) = self.lease else { return self.grant().await };
        let id = lease.to_string();
        let kept = self.ask("/v3/lease/keepalive", &json!({ "ID": id })).await?;
        // One that is gone has no TTL.
        if kept.pointer("/result/TTL").and_then(number).is_none_or(|ttl| ttl <= 0) {
            tracing::warn!("the lease has ended; everything is registered anew");
            return self.grant().await;
        }
        let holds = self.ask("/v3/lease/timetolive", &json!({ "ID": id, "keys": true })).await?;
        self.compare(&keys(&holds));
        Ok(())
    }

    async fn grant(&mut self) -> Result<(), EtcdError> {
        // Keys of a lease before this one come under this one as they are put again.
        self.lease = None;
        self.has.clear();
        let path = "/v3/lease/grant";
        let granted = self.ask(path, &json!({ "TTL": self.ttl.as_secs().to_string() })).await?;
        self.lease = Some(granted.get("ID").and_then(number).ok_or(EtcdError::Senseless { path })?);
        Ok(())
    }

    /// What somebody else took from the lease we have no longer; what we did not know of it may have any value.
    fn compare(&mut self, held: &BTreeSet<String>) {
        self.has.retain(|key, _| held.contains(key));
        for key in held {
            self.has.entry(key.clone()).or_default();
        }
    }

    /// Each key by itself, and not in transactions: one that etcd refuses would take the others of its transaction with it.
    async fn write(&mut self, wanted: &Entries) -> Result<(), EtcdError> {
        let (Some(lease), Some(member)) = (self.lease, self.member().cloned()) else { return Ok(()) };
        let wanted =
            wanted.iter().map(|(entry, addr)| (format!("{}/{entry}", self.prefix), addr.to_string()));
        let steps: BTreeMap<_, _> = steps(&self.has, &wanted.collect());
        let entries: BTreeSet<String> = steps.iter().map(|(key, step)| step.entry(key)).collect();
        self.refused.retain(|entry| entries.contains(entry));
        let is_due = |(key, step): &(String, Step)| self.refused.is_due(&step.entry(key));
        let mut due: Vec<_> = steps.into_iter().filter(is_due).collect();
        // What is gone must not be found while what is new is written.
        due.sort_by_key(|(_, step)| matches!(step, Step::Put(_)));
        for (key, _) in due.iter().filter(|(_, step)| matches!(step, Step::Put(_))) {
            // Until it is answered, it may be either.
            self.has.insert(key.clone(), None);
        }
        let take = |(key, step): (String, Step)| {
            let member = &member;
            async move { (take(member, &key, &step, lease).await, key, step) }
        };
        let mut taken = stream::iter(due.into_iter().map(take)).buffer_unordered(AT_ONCE);
        while let Some((taken, key, step)) = taken.next().await {
            match taken {
                Ok(()) => self.done(&key, &step),
                Err(error) if concerns_key_alone(&error) => {
                    self.refused.refused(&step.entry(&key), &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn done(&mut self, key: &str, step: &Step) {
        self.refused.accepted(&step.entry(key));
        match step {
            Step::Put(value) => {
                tracing::info!(key, value, "registered");
                self.has.insert(key.to_owned(), Some(value.clone()));
            }
            Step::Delete => {
                tracing::info!(key, "withdrawn");
                self.has.remove(key);
            }
        }
    }

    async fn ask(&self, path: &str, body: &Value) -> Result<Value, EtcdError> {
        match self.member() {
            Some(member) => member.ask(path, body).await,
            None => Err(EtcdError::Senseless { path: "no members" }),
        }
    }

    fn member(&self) -> Option<&Client> {
        self.members.get(self.turn % self.members.len().max(1))
    }

    fn or_next_member(&mut self, done: Result<(), EtcdError>) -> Result<(), String> {
        done.map_err(|error| {
            self.turn += 1;
            error.to_string()
        })
    }
}

/// By key.
fn steps(
    has: &BTreeMap<String, Option<String>>,
    wanted: &BTreeMap<String, String>,
) -> BTreeMap<String, Step> {
    let gone = has.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Step::Delete));
    let new = wanted.iter().filter(|(key, value)| has.get(*key).and_then(Option::as_ref) != Some(value));
    gone.chain(new.map(|(key, value)| (key.clone(), Step::Put(value.clone())))).collect()
}

async fn take(member: &Client, key: &str, step: &Step, lease: i64) -> Result<(), EtcdError> {
    let (path, body) = request(key, step, lease);
    member.ask::<IgnoredAny>(path, &body).await.map(|_| ())
}

fn request(key: &str, step: &Step, lease: i64) -> (&'static str, Value) {
    let key = encoded(key);
    match step {
        Step::Put(value) => {
            ("/v3/kv/put", json!({ "key": key, "value": encoded(value), "lease": lease.to_string() }))
        }
        Step::Delete => ("/v3/kv/deleterange", json!({ "key": key })),
    }
}

/// Permission is given by key. What else etcd refuses it refuses to all: no leader, no space, a lease that has ended.
fn concerns_key_alone(error: &EtcdError) -> bool {
    matches!(error, EtcdError::Http(error) if error.refusal().is_some_and(|(status, _)| status == StatusCode::FORBIDDEN))
}

fn keys(held: &Value) -> BTreeSet<String> {
    let keys = held.get("keys").and_then(Value::as_array).into_iter().flatten();
    let text = |key: &Value| String::from_utf8(BASE64.decode(key.as_str()?.as_bytes()).ok()?).ok();
    keys.filter_map(text).collect()
}

/// What the fuzz targets feed: the keys of a lease.
pub(super) fn read_any(answer: &[u8]) {
    if let Ok(held) = serde_json::from_slice(answer) {
        let _ = keys(&held);
    }
}

#[cfg(test)]
mod tests;
