//! One stay with one engine: subscribe, list, inspect, follow, until it is lost.
//!
//! ```text
//!   event ──► inspect ──► snapshot         every 5 s, and soon while endpoints do not answer:
//!     ▲                                    list ──► what it takes away goes; what differs is inspected
//!     └── subscribe again ◄── nothing heard until the next list ◄── a change that no event announced
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::api::Listed;
use super::client::{ApiError, Client, Events};
use super::event::Event;
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

/// Without events, a container's address may belong to another for so long. One list of twenty containers takes an engine
/// some 5 ms.
const RESYNC_EVERY: Duration = Duration::from_secs(5);

/// While endpoints do not answer: an address may have changed.
const RESYNC_IN_TROUBLE: Duration = Duration::from_secs(1);

/// A list of thousands of containers takes an engine a second. A pause is so many times as long as the last list took, up
/// to [`RESYNC_MAX`]: no more than 2 % of an engine's time, or 10 % in trouble, unless a list takes longer than 0.3 s.
const PAUSE_PER_LIST: u32 = 50;
const PAUSE_PER_LIST_IN_TROUBLE: u32 = 10;
const RESYNC_MAX: Duration = Duration::from_secs(15);

struct ListAnswer {
    /// What was known when it was asked for.
    before: BTreeSet<ContainerId>,
    took: Duration,
    list: Result<Vec<Listed>, ApiError>,
}

type Listing = BoxFuture<'static, ListAnswer>;
type Subscription = BoxFuture<'static, Result<Events, ApiError>>;
type Inspection = BoxFuture<'static, (ContainerId, Result<Answer, ApiError>)>;

pub(super) struct Watch {
    client: Client,
    events: Events,
    view: View,
    inspections: FuturesUnordered<Inspection>,
    listing: Option<Listing>,
    /// When the list was last asked for, and is next.
    list_asked: Instant,
    resync: Instant,
    list_took: Duration,
    /// Notified while endpoints do not answer.
    trouble: Arc<Notify>,
    /// A change was missed, and nothing was heard since: the stream may be dead.
    is_suspect: bool,
    subscription: Option<Subscription>,
    answers: usize,
    /// Why the last inspection failed.
    failure: Option<ApiError>,
}

impl Watch {
    /// Subscribes, then asks for the list: what happens between the two is an event already.
    pub(super) async fn begin(
        client: Client,
        own: Vec<String>,
        trouble: Arc<Notify>,
    ) -> Result<Watch, ApiError> {
        let events = client.events().await?;
        let view = View::new(own, client.engine.to_string());
        let mut watch = Watch {
            client,
            events,
            view,
            inspections: FuturesUnordered::new(),
            listing: None,
            list_asked: Instant::now(),
            resync: Instant::now(),
            list_took: Duration::ZERO,
            trouble,
            is_suspect: false,
            subscription: None,
            answers: 0,
            failure: None,
        };
        watch.list();
        watch.resync = Instant::now() + RESYNC_FIRST;
        while watch.listing.is_some() || !watch.view.settled() {
            watch.step().await?;
        }
        // The first list is no change that an event could have announced.
        watch.view.take_missed();
        watch.is_suspect = false;
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
            let snapshot = self.view.snapshot();
            // Of an address that two containers show.
            self.inspect();
            if let Some(snapshot) = snapshot {
                return Ok(snapshot);
            }
            self.step().await?;
        }
    }

    /// Waits for one thing to happen, and takes all else that has happened by then.
    async fn step(&mut self) -> Result<(), ApiError> {
        tokio::select! {
            event = self.events.next() => self.heard(event?),
            Some((id, answer)) = self.inspections.next() => self.answered(id, answer),
            answer = under_way(&mut self.listing) => self.listed(answer)?,
            events = under_way(&mut self.subscription) => self.subscribed(events?),
            () = sleep_until(self.resync), if self.is_idle() => self.resync(),
            () = self.trouble.notified() => self.resync = self.resync.min(self.soonest()),
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
        self.is_suspect |= self.view.take_missed();
        for _ in 0..BURST_MAX {
            match self.events.next().now_or_never() {
                Some(event) => self.heard(event?),
                None => break,
            }
        }
        if self.view.pending() > PENDING_MAX {
            return Err(ApiError::Unusable("the engine names more containers than can be".to_owned()));
        }
        Ok(())
    }

    fn heard(&mut self, event: Event) {
        self.is_suspect = false;
        self.view.heard(event);
    }

    /// No list and no subscription is under way.
    fn is_idle(&self) -> bool {
        self.listing.is_none() && self.subscription.is_none()
    }

    fn resync(&mut self) {
        if !self.is_suspect {
            return self.list();
        }
        tracing::info!("Docker's event stream missed a change: subscribing again");
        let client = self.client.clone();
        self.subscription = Some(async move { client.events().await }.boxed());
    }

    /// Lists after that, as at the beginning.
    fn subscribed(&mut self, events: Events) {
        self.subscription = None;
        self.events = events;
        self.is_suspect = false;
        self.list();
        self.resync = self.list_asked + RESYNC_FIRST;
    }

    fn list(&mut self) {
        let client = self.client.clone();
        let before = self.view.listing();
        self.list_asked = Instant::now();
        let asked = self.list_asked;
        let listing = async move {
            let list = client.list().await;
            ListAnswer { before, took: asked.elapsed(), list }
        };
        self.listing = Some(listing.boxed());
        self.resync = self.list_asked + self.pause(RESYNC_EVERY, PAUSE_PER_LIST);
    }

    fn listed(&mut self, ListAnswer { before, took, list }: ListAnswer) -> Result<(), ApiError> {
        self.listing = None;
        self.list_took = took;
        self.view.listed(&list?, &before);
        Ok(())
    }

    /// When the list may be asked for while endpoints do not answer.
    fn soonest(&self) -> Instant {
        self.list_asked + self.pause(RESYNC_IN_TROUBLE, PAUSE_PER_LIST_IN_TROUBLE)
    }

    fn pause(&self, least: Duration, per_list: u32) -> Duration {
        self.list_took.saturating_mul(per_list).clamp(least, RESYNC_MAX)
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

/// The answer to what is under way; pending while nothing is.
async fn under_way<T>(request: &mut Option<BoxFuture<'static, T>>) -> T {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}
