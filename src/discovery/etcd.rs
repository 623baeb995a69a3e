//! etcd as a source: the keys below a prefix, read at one revision and watched from the next.
//!
//! ```text
//!   list at revision R ──► watch from R+1 ──► changes ... ──► the member fails: the same with the next member
//!          ▲                      │
//!          └──── compacted ───────┘          and every 15 s the list again, against a watch that has died in silence
//! ```
//!
//! Over etcd's JSON gateway, and not gRPC: the client libraries need a compiler of protocol buffers to build.

pub(crate) mod api;
pub(crate) mod client;
mod value;
mod view;

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep, sleep_until};

use super::dns::{Names, Resolver};
use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::address::EndpointSpec;
use crate::backoff::jittered;
use crate::config::etcd::EtcdAccess;
use crate::route::{EtcdKeys, Target};
use api::{Listing, Watched};
use client::{Client, EtcdError, Watch};
use view::{Complaint, Learned, View};

/// The list is cheap, and asked of the whole cluster: it finds a connection that died without a word and a member that
/// was cut off from the others, and is the longest time for which anything can be wrong.
const RELIST_EVERY: Duration = Duration::from_secs(15);

/// A member that was followed for so long and then failed is no reason to think that the others fail too.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Before the next member is asked, so that all who have lost one do not come at once.
const FAILOVER_PAUSE: Duration = Duration::from_millis(20);

pub struct Etcd {
    keys: EtcdKeys,
    /// One for each member.
    clients: Vec<Client>,
    view: View,
    names: Names,
    /// Of the members: the one that is asked, or will be.
    turn: usize,
    /// What was published last.
    shown: Option<Vec<EndpointSpec>>,
    /// Since when the member's watch runs.
    following: Option<Instant>,
}

impl Etcd {
    pub fn new(keys: EtcdKeys, access: &EtcdAccess, resolver: Resolver) -> Etcd {
        let view = View::new(&keys.prefix);
        let clients = keys.members.iter().map(|member| Client::new(member, keys.tls, access)).collect();
        Etcd { keys, clients, view, names: Names::new(resolver), turn: 0, shown: None, following: None }
    }
}

impl Source for Etcd {
    fn name(&self) -> String {
        self.target().to_string()
    }

    /// Lost only when every member has failed one after the other.
    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        let mut failures = Vec::new();
        // Once more than there are members, so that a single one gets a second chance.
        while failures.len() <= self.keys.members.len() {
            let Some(client) = self.client() else { break };
            let member = client.member().to_owned();
            self.following = None;
            // Anew: a source that was lost must say so when it is back, though nothing has changed.
            self.shown = None;
            let Err(failure) = self.stay(client, publisher).await;
            let why = match failure {
                Failure::Stopped => return SourceError::Stopped,
                Failure::Failed(why) => format!("{member}: {why}"),
            };
            if self.following.is_some_and(|since| since.elapsed() > SETTLED_AFTER) {
                failures.clear();
            }
            tracing::debug!(source = self.name(), why, "an etcd member failed");
            failures.push(why);
            self.turn += 1;
            sleep(jittered(FAILOVER_PAUSE)).await;
        }
        failures.sort();
        failures.dedup();
        SourceError::Failed(failures.join("; "))
    }
}

enum Failure {
    Stopped,
    Failed(String),
}

impl From<Stopped> for Failure {
    fn from(Stopped: Stopped) -> Failure {
        Failure::Stopped
    }
}

impl From<EtcdError> for Failure {
    fn from(error: EtcdError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Failed(why)
    }
}

/// With the revision that was known when it was asked for.
type Relist = BoxFuture<'static, Result<(Listing, i64), EtcdError>>;

/// One stay with one member.
struct Stay {
    client: Client,
    watch: Watch,
    /// When to list again, or the list under way.
    relist_at: Instant,
    relist: Option<Relist>,
    /// The last list knew what the watch had not told.
    behind: bool,
}

enum Step {
    Told(Watched),
    Listed(Listing, i64),
    Resolved,
    TimeToList,
}

impl Etcd {
    fn target(&self) -> Target {
        Target::Etcd(self.keys.clone())
    }

    /// Of the member whose turn it is. `None` without any members, which no target is.
    fn client(&self) -> Option<Client> {
        self.clients.get(self.turn % self.clients.len().max(1)).cloned()
    }

    async fn stay(
        &mut self,
        client: Client,
        publisher: &mut Publisher,
    ) -> Result<std::convert::Infallible, Failure> {
        self.view.begin();
        self.view.listed(client.list(&self.keys.prefix).await?, 0)?;
        self.publish(publisher).await?;
        let watch = client.watch(&self.keys.prefix, self.view.next_revision()).await?;
        self.following = Some(Instant::now());
        tracing::debug!(source = self.name(), member = client.member(), "following");
        let relist_at = Instant::now() + jittered(RELIST_EVERY);
        let mut stay = Stay { client, watch, relist_at, relist: None, behind: false };
        loop {
            let step = tokio::select! {
                told = stay.watch.next() => Step::Told(told?),
                listed = under_way(&mut stay.relist) => {
                    let (listing, known) = listed?;
                    Step::Listed(listing, known)
                }
                () = self.names.changed() => Step::Resolved,
                () = sleep_until(stay.relist_at), if stay.relist.is_none() => Step::TimeToList,
            };
            self.take(&mut stay, step)?;
            self.publish(publisher).await?;
        }
    }

    fn take(&mut self, stay: &mut Stay, step: Step) -> Result<(), Failure> {
        match step {
            Step::Told(Watched::Changes(changes)) => {
                stay.behind = false;
                self.view.heard(changes)?;
            }
            Step::Told(Watched::Compacted) => {
                return Err("what happened meanwhile is compacted".to_owned().into());
            }
            Step::Told(Watched::Canceled(why)) => return Err(EtcdError::Watch(why).into()),
            Step::Listed(listing, known) => {
                stay.relist = None;
                stay.relist_at = Instant::now() + jittered(RELIST_EVERY);
                let learned = self.view.listed(listing, known)?;
                // Once may be a change that is on its way; twice, without a word between, is not.
                if learned == Learned::Something && std::mem::replace(&mut stay.behind, true) {
                    return Err("the watch has fallen silent".to_owned().into());
                }
            }
            Step::Resolved => {}
            Step::TimeToList => {
                let (client, prefix) = (stay.client.clone(), self.keys.prefix.clone());
                let known = self.view.revision();
                stay.relist = Some(async move { Ok((client.list(&prefix).await?, known)) }.boxed());
            }
        }
        Ok(())
    }

    /// Where it differs from what was published.
    async fn publish(&mut self, publisher: &mut Publisher) -> Result<(), Stopped> {
        for Complaint { key, why } in self.view.take_complaints() {
            tracing::warn!(source = self.name(), key, "the value of this key is no endpoint: {why}");
        }
        self.names.want(&self.view.names());
        let endpoints = self.view.endpoints(|name| self.names.addresses(name));
        if self.shown.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        self.shown = Some(endpoints.clone());
        publisher.publish(Snapshot::Target { target: self.target(), endpoints, problem: None }).await
    }
}

/// Waits for ever while none is.
async fn under_way(relist: &mut Option<Relist>) -> Result<(Listing, i64), EtcdError> {
    match relist {
        Some(relist) => relist.await,
        None => std::future::pending().await,
    }
}

/// What the fuzz targets feed: the value of a key, an answer of the gateway, or a line of a watch.
#[doc(hidden)]
pub fn read_any(value: &[u8]) {
    let _ = value::parse(value);
    let mut view = View::new("/a");
    if let Some(listing) = serde_json::from_slice(value).ok().and_then(api::listing) {
        let _ = view.listed(listing, 0);
    }
    if let Some(Ok(Watched::Changes(changes))) = serde_json::from_slice(value).ok().map(api::watched) {
        let _ = view.heard(changes);
    }
    let _ = (view.endpoints(|_| Vec::new()), view.names(), view.take_complaints());
}

#[cfg(test)]
mod tests;
