//! Entries as keys of etcd, all under one lease: they end with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::wanted::Entries;
use crate::config::etcd::EtcdAccess;
use crate::discovery::etcd::api::{encoded, number};
use crate::discovery::etcd::client::{Client, EtcdError};
use crate::route::EtcdKeys;

/// Operations of one transaction: etcd takes 128 by default (`--max-txn-ops`).
const BATCH: usize = 100;

pub(super) struct Etcd {
    members: Vec<Client>,
    /// The one that is asked.
    turn: usize,
    prefix: String,
    ttl: Duration,
    lease: Option<i64>,
    /// The keys of the lease, each with the value that we know it has.
    has: BTreeMap<String, Option<String>>,
}

enum Step {
    Put(String),
    Delete,
}

impl Etcd {
    pub(super) fn new(keys: EtcdKeys, access: &EtcdAccess, ttl: Duration) -> Etcd {
        let EtcdKeys { tls, members, prefix } = keys;
        // A member that hangs must leave time to renew the lease with another.
        let client = |member: &String| Client::new(member, tls, access).patience(ttl / 4);
        let members = members.iter().map(client).collect();
        Etcd { members, turn: 0, prefix, ttl, lease: None, has: BTreeMap::new() }
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

    async fn write(&mut self, wanted: &Entries) -> Result<(), EtcdError> {
        let Some(lease) = self.lease else { return Ok(()) };
        let wanted =
            wanted.iter().map(|(entry, addr)| (format!("{}/{entry}", self.prefix), addr.to_string()));
        let steps: Vec<(String, Step)> = steps(&self.has, &wanted.collect());
        for batch in steps.chunks(BATCH) {
            for (key, step) in batch {
                // Until it is answered, it may be either.
                if let Step::Put(_) = step {
                    self.has.insert(key.clone(), None);
                }
            }
            self.ask("/v3/kv/txn", &transaction(batch, lease)).await?;
            for (key, step) in batch {
                self.done(key, step);
            }
        }
        Ok(())
    }

    fn done(&mut self, key: &str, step: &Step) {
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
        match self.members.iter().cycle().nth(self.turn % self.members.len().max(1)) {
            Some(member) => member.ask(path, body).await,
            None => Err(EtcdError::Senseless { path: "no members" }),
        }
    }

    fn or_next_member(&mut self, done: Result<(), EtcdError>) -> Result<(), String> {
        done.map_err(|error| {
            self.turn += 1;
            error.to_string()
        })
    }
}

/// Deletions first: what is gone must not be found while what is new is written.
fn steps(has: &BTreeMap<String, Option<String>>, wanted: &BTreeMap<String, String>) -> Vec<(String, Step)> {
    let gone = has.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Step::Delete));
    let new = wanted.iter().filter(|(key, value)| has.get(*key).and_then(Option::as_ref) != Some(value));
    gone.chain(new.map(|(key, value)| (key.clone(), Step::Put(value.clone())))).collect()
}

/// All or nothing.
fn transaction(steps: &[(String, Step)], lease: i64) -> Value {
    let operation = |(key, step): &(String, Step)| match step {
        Step::Put(value) => {
            json!({ "request_put": { "key": encoded(key), "value": encoded(value), "lease": lease.to_string() } })
        }
        Step::Delete => json!({ "request_delete_range": { "key": encoded(key) } }),
    };
    json!({ "success": steps.iter().map(operation).collect::<Vec<_>>() })
}

fn keys(held: &Value) -> BTreeSet<String> {
    let keys = held.get("keys").and_then(Value::as_array).into_iter().flatten();
    let text = |key: &Value| String::from_utf8(BASE64.decode(key.as_str()?.as_bytes()).ok()?).ok();
    keys.filter_map(text).collect()
}

/// What the fuzz targets feed: the keys of a lease.
pub(super) fn read_any(answer: &Value) {
    let _ = keys(answer);
}

#[cfg(test)]
mod tests;
