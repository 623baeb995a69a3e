//! One stay with one engine: subscribe, list, inspect, follow, until it is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::api::Listed;
use super::client::{ApiError, Client, Events};
use super::view::{Answer, View};
use crate::discovery::containers::{ContainerId, Containers};

/// Inspections under way at once: enough to hide their latency, few enough not to be a burst to the engine.
const INSPECTIONS_MAX: usize = 8;

/// Events taken before what they mean is published: a `compose up` of hundreds of containers is a few snapshots.
const BURST_MAX: usize = 1024;

/// More containers to ask about than any engine runs: something is wrong with what it tells us, so start again.
const PENDING_MAX: usize = 100_000;

/// The list is asked for again: it is how a connection that died without a word is found, and how an event that the
/// engine dropped (it keeps 1,024 for a slow reader) is made good. The first time at once, because the engine begins
/// to answer `/events` a moment before it subscribes us (moby, `getEvents`: flush, then `SubscribeToEvents`).
pub(super) const RESYNC_FIRST: Duration = Duration::from_secs(1);
const RESYNC_EVERY: Duration = Duration::from_secs(15);

type Listing = BoxFuture<'static, (BTreeSet<ContainerId>, Result<Vec<Listed>, ApiError>)>;
type Inspection = BoxFuture<'static, (ContainerId, Result<Answer, ApiError>)>;

pub(super) struct Watch {
    client: Client,
    events: Events,
    view: View,
    inspections: FuturesUnordered<Inspection>,
    listing: Option<Listing>,
    /// When the list is next asked for.
    resync: Instant,
    answers: usize,
    /// Why the last inspection failed.
    failure: Option<ApiError>,
}

impl Watch {
    /// Subscribes, then asks for the list: what happens between the two is an event already.
    pub(super) async fn begin(client: Client, own: Vec<String>) -> Result<Watch, ApiError> {
        let events = client.events().await?;
        let mut watch = Watch {
            client,
            events,
            view: View::new(own),
            inspections: FuturesUnordered::new(),
            listing: None,
            resync: Instant::now(),
            answers: 0,
            failure: None,
        };
        watch.list();
        watch.resync = Instant::now() + RESYNC_FIRST;
        while watch.listing.is_some() || !watch.view.settled() {
            watch.step().await?;
        }
        // One container that cannot be inspected is left out; an engine that inspects none (a proxy that forbids it) is
        // not one without containers.
        match watch.failure.take() {
            Some(failure) if watch.answers == 0 => Err(failure),
            _ => Ok(watch),
        }
    }

    /// What to publish next; waits until there is something.
    pub(super) async fn changed(&mut self) -> Result<Containers, ApiError> {
        loop {
            if let Some(snapshot) = self.view.snapshot() {
                return Ok(snapshot);
            }
            self.step().await?;
        }
    }

    /// Waits for one thing to happen, and takes all else that has happened by then.
    async fn step(&mut self) -> Result<(), ApiError> {
        tokio::select! {
            event = self.events.next() => self.view.heard(event?),
            Some((id, answer)) = self.inspections.next() => self.answered(id, answer),
            (before, list) = listing(&mut self.listing) => self.listed(&before, list)?,
            () = sleep_until(self.resync), if self.listing.is_none() => self.list(),
        }
        self.take_ready()?;
        self.inspect();
        Ok(())
    }

    /// Events last: what one of them takes away, no answer taken before it brings back.
    fn take_ready(&mut self) -> Result<(), ApiError> {
        while let Some(Some((id, answer))) = self.inspections.next().now_or_never() {
            self.answered(id, answer);
        }
        for _ in 0..BURST_MAX {
            match self.events.next().now_or_never() {
                Some(event) => self.view.heard(event?),
                None => break,
            }
        }
        if self.view.pending() > PENDING_MAX {
            return Err(ApiError::Unusable("the engine names more containers than can be".to_owned()));
        }
        Ok(())
    }

    fn list(&mut self) {
        let client = self.client.clone();
        let before = self.view.ids();
        self.listing = Some(async move { (before, client.list().await) }.boxed());
        self.resync = Instant::now() + RESYNC_EVERY;
    }

    fn listed(
        &mut self,
        before: &BTreeSet<ContainerId>,
        list: Result<Vec<Listed>, ApiError>,
    ) -> Result<(), ApiError> {
        self.listing = None;
        self.view.listed(&list?, before);
        Ok(())
    }

    fn inspect(&mut self) {
        while self.inspections.len() < INSPECTIONS_MAX {
            let Some(id) = self.view.ask() else { return };
            let client = self.client.clone();
            self.inspections.push(async move { (id.clone(), client.inspect(&id).await) }.boxed());
        }
    }

    fn answered(&mut self, id: ContainerId, answer: Result<Answer, ApiError>) {
        let answer = match answer {
            Ok(answer) => {
                self.answers += 1;
                answer
            }
            Err(error) => {
                tracing::debug!(container = id.0, %error, "cannot inspect a container; what is known of it stands");
                self.failure = Some(error);
                Answer::Silent
            }
        };
        self.view.answered(id, answer);
    }
}

/// The answer to a list that is under way; pending while none is.
async fn listing(listing: &mut Option<Listing>) -> (BTreeSet<ContainerId>, Result<Vec<Listed>, ApiError>) {
    match listing {
        Some(listing) => listing.await,
        None => std::future::pending().await,
    }
}
