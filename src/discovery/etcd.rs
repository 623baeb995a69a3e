//! etcd as a source: the keys below a prefix, read at one revision and watched from the next.
//!
//! ```text
//!   list at revision R ──► watch from R+1 ──► changes ... ──► the member fails: the same with the next member
//!          ▲                      │
//!          └──── compacted ───────┘          and every 15 s the list again, to detect a watch that failed silently
//! ```
//!
//! Uses etcd's JSON gateway instead of gRPC, whose client libraries need a protocol buffer compiler to build.

pub(crate) mod api;
pub(crate) mod client;
mod keys;
mod value;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep, sleep_until};

use super::endpoint_resolver::EndpointResolver;
use super::{Publisher, Snapshot, Source, SourceError, Stopped, in_flight};
use crate::backoff::jittered;
use crate::config::etcd::EtcdAccess;
use crate::route::{EtcdKeys, Target};
use api::{Listing, WatchResponse};
use client::{Client, EtcdError, EtcdWatch};
use keys::{Comparison, InvalidKey, KeyState, KeysError};

/// The list is cheap, and needs a quorum: it detects a connection that failed silently and a member that was partitioned from
/// the others, and limits the time for which stale endpoints are used.
const RELIST_EVERY: Duration = Duration::from_secs(15);

/// After a watch of this length, the failure of a member does not indicate that the others fail too.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The pause before the next member is used, so that the clients of a failed member are spread.
const FAILOVER_PAUSE: Duration = Duration::from_millis(20);

/// The source for one prefix.
pub(crate) struct Etcd {
    keys: EtcdKeys,
    /// One for each member.
    clients: Vec<Client>,
    state: KeyState,
    endpoints: EndpointResolver,
    /// The index of the current member, modulo their number.
    turn: usize,
    /// When the current member's watch began.
    following: Option<Instant>,
}

impl Etcd {
    pub(crate) fn new(keys: EtcdKeys, access: &EtcdAccess, endpoints: EndpointResolver) -> Etcd {
        let state = KeyState::new(&keys.prefix);
        let clients = keys.members.iter().map(|member| Client::new(member, keys.tls, access)).collect();
        Etcd { keys, clients, state, endpoints, turn: 0, following: None }
    }
}

impl Source for Etcd {
    fn name(&self) -> String {
        self.target().to_string()
    }

    /// Fails only when all members have failed one after the other.
    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        let mut failures = Vec::new();
        // One attempt more than there are members, so that a single member is tried twice.
        while failures.len() <= self.keys.members.len() {
            let Some(client) = self.client() else { break };
            let member = client.member().to_owned();
            self.following = None;
            let Err(failure) = self.follow_member(client, publisher).await;
            let why = match failure {
                Failure::Stopped(stopped) => return stopped.into(),
                failure => format!("{member}: {failure}"),
            };
            if self.following.is_some_and(|since| since.elapsed() > SETTLED_AFTER) {
                failures.clear();
            }
            tracing::debug!(source = self.name(), why, "etcd member failed");
            failures.push(why);
            self.turn += 1;
            sleep(jittered(FAILOVER_PAUSE)).await;
        }
        failures.sort_unstable();
        failures.dedup();
        SourceError::Failed(failures.join("; "))
    }
}

/// Why a member is no longer followed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("changes since the last revision are compacted")]
    Compacted,
    #[error("the watch no longer reports changes")]
    SilentWatch,
}

/// A list under way, with the revision that was known when it was requested.
type Relist = BoxFuture<'static, Result<(Listing, i64), EtcdError>>;

/// The state of following one member.
struct MemberWatch {
    client: Client,
    watch: EtcdWatch,
    /// When to list again.
    relist_at: Instant,
    relist: Option<Relist>,
    /// The last list contained changes that the watch had not reported.
    behind: bool,
}

enum Step {
    Watched(WatchResponse),
    Listed(Listing, i64),
    Resolved,
    TimeToList,
}

impl Etcd {
    fn target(&self) -> Target {
        Target::Etcd(self.keys.clone())
    }

    /// Returns the client of the current member. `None` only if there are no members.
    fn client(&self) -> Option<Client> {
        self.clients.get(self.turn % self.clients.len().max(1)).cloned()
    }

    async fn follow_member(
        &mut self,
        client: Client,
        publisher: &mut Publisher,
    ) -> Result<Infallible, Failure> {
        self.state.reset_revision();
        self.state.apply_listing(client.list(&self.keys.prefix).await?, 0)?;
        publisher.answered().record();
        self.update_endpoints();
        self.publish(publisher).await?;
        let watch = client.watch(&self.keys.prefix, self.state.next_revision()).await?;
        self.following = Some(Instant::now());
        tracing::debug!(source = self.name(), member = client.member(), "following");
        let relist_at = Instant::now() + jittered(RELIST_EVERY);
        let mut member = MemberWatch { client, watch, relist_at, relist: None, behind: false };
        loop {
            let step = tokio::select! {
                response = member.watch.next() => Step::Watched(response?),
                listed = in_flight(&mut member.relist) => {
                    let (listing, before) = listed?;
                    Step::Listed(listing, before)
                }
                () = self.endpoints.changed() => Step::Resolved,
                () = sleep_until(member.relist_at), if member.relist.is_none() => Step::TimeToList,
            };
            let is_answer = matches!(step, Step::Watched(_) | Step::Listed(..));
            self.handle(&mut member, step)?;
            if is_answer {
                publisher.answered().record();
            }
            self.publish(publisher).await?;
        }
    }

    fn handle(&mut self, member: &mut MemberWatch, step: Step) -> Result<(), Failure> {
        match step {
            Step::Watched(WatchResponse::Changes(changes)) => {
                member.behind = false;
                self.state.apply_changes(changes)?;
                self.update_endpoints();
            }
            Step::Watched(WatchResponse::Compacted) => return Err(Failure::Compacted),
            Step::Watched(WatchResponse::Canceled(why)) => return Err(EtcdError::Watch(why).into()),
            Step::Listed(listing, before) => {
                member.relist = None;
                member.relist_at = Instant::now() + jittered(RELIST_EVERY);
                let comparison = self.state.apply_listing(listing, before)?;
                self.update_endpoints();
                // One difference may be a change that the watch is about to report; two in a row, without a response in
                // between, are not.
                if comparison == Comparison::Changed && std::mem::replace(&mut member.behind, true) {
                    return Err(Failure::SilentWatch);
                }
            }
            Step::Resolved => {}
            Step::TimeToList => {
                let (client, prefix) = (member.client.clone(), self.keys.prefix.clone());
                let before = self.state.revision();
                member.relist = Some(async move { Ok((client.list(&prefix).await?, before)) }.boxed());
            }
        }
        Ok(())
    }

    /// Reports invalid keys and resolves the names of the others.
    fn update_endpoints(&mut self) {
        for InvalidKey { key, why } in self.state.take_invalid() {
            tracing::warn!(source = self.name(), key, "invalid endpoint: {why}");
        }
        self.endpoints.set(self.state.endpoints());
    }

    async fn publish(&mut self, publisher: &mut Publisher) -> Result<(), Stopped> {
        let endpoints = self.endpoints.endpoints();
        let problem = self.endpoints.problem();
        publisher.publish_changed(Snapshot::Target { target: self.target(), endpoints, problem }).await
    }
}

/// Fuzz target: reads the value of a key, a response of the gateway, or a line of a watch.
#[doc(hidden)]
pub fn read_any(value: &[u8]) {
    let _ = value::parse("/a", value);
    let mut state = KeyState::new("/a");
    if let Some(listing) = serde_json::from_slice(value).ok().and_then(api::listing) {
        let _ = state.apply_listing(listing, 0);
    }
    if let Some(Ok(WatchResponse::Changes(changes))) =
        serde_json::from_slice(value).ok().map(api::watch_response)
    {
        let _ = state.apply_changes(changes);
    }
    let _ = (
        super::endpoint_resolver::resolve(&state.endpoints(), |_| Vec::new(), &BTreeSet::new()),
        state.take_invalid(),
    );
}

#[cfg(test)]
mod tests;
