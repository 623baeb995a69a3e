//! Follows one engine until it fails: subscribes to its events, lists its containers, inspects them.
//!
//! ```text
//!   event ──► inspect ──► snapshot         every 5 s, and soon while endpoints do not respond:
//!     ▲                                    list ──► removals are applied; differences are inspected
//!     └── subscribe again ◄── no event until the next list ◄── a change without an event
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::api::ContainerSummary;
use super::client::{ApiError, Client, EventStream};
use super::engine::{EngineState, Inspection};
use super::event::DockerEvent;
use super::model::{ContainerId, Containers};
use crate::discovery::{LastAnswer, in_flight};

/// Concurrent inspections: enough to hide their latency, few enough not to be a burst to the engine.
const INSPECTIONS_MAX: usize = 8;

/// Events applied before a snapshot is published: a `compose up` of hundreds of containers is a few snapshots.
const BURST_MAX: usize = 1024;

/// More containers to inspect than any engine runs: the state is discarded and read again.
const PENDING_MAX: usize = 100_000;

/// The first list after a subscription. Lists detect a connection that failed silently, and events that the engine dropped (it
/// buffers 1,024 for a slow reader). The first comes soon, because the engine begins to respond to `/events` a moment before it
/// subscribes the client (moby, `getEvents`: flush, then `SubscribeToEvents`).
pub(super) const RESYNC_FIRST: Duration = Duration::from_secs(1);

/// Without events, an address that was reassigned is used for that long at most. A list of twenty containers takes an engine
/// about 5 ms.
const RESYNC_EVERY: Duration = Duration::from_secs(5);

/// While endpoints do not respond: an address may have changed.
const RESYNC_IN_TROUBLE: Duration = Duration::from_secs(1);

/// A list of thousands of containers takes an engine a second. The pause is this multiple of the duration of the last list, up to
/// [`RESYNC_MAX`]: no more than 2 % of an engine's time, or 10 % while endpoints do not respond, unless a list takes longer than
/// 0.3 s.
const PAUSE_PER_LIST: u32 = 50;
const PAUSE_PER_LIST_IN_TROUBLE: u32 = 10;
const RESYNC_MAX: Duration = Duration::from_secs(15);

struct ListResponse {
    /// The containers known when the list was requested.
    before: BTreeSet<ContainerId>,
    took: Duration,
    list: Result<Vec<ContainerSummary>, ApiError>,
}

type Listing = BoxFuture<'static, ListResponse>;
type Subscription = BoxFuture<'static, Result<EventStream, ApiError>>;
type PendingInspection = BoxFuture<'static, (ContainerId, Result<Inspection, ApiError>)>;

pub(super) struct EngineWatch {
    client: Client,
    events: EventStream,
    state: EngineState,
    inspections: FuturesUnordered<PendingInspection>,
    listing: Option<Listing>,
    /// The times of the last and of the next request for the list.
    last_list: Instant,
    next_list: Instant,
    list_took: Duration,
    /// Notified while endpoints do not respond.
    trouble: Arc<Notify>,
    answered: LastAnswer,
    /// A change came without an event, and no event has come since: the stream may have failed.
    is_suspect: bool,
    subscription: Option<Subscription>,
    inspected: usize,
    /// Why the last inspection failed.
    failure: Option<ApiError>,
}

impl EngineWatch {
    /// Subscribes, then lists, so that a change between the two is an event. Returns once every container was inspected.
    pub(super) async fn begin(
        client: Client,
        own: Vec<String>,
        trouble: Arc<Notify>,
        answered: LastAnswer,
    ) -> Result<EngineWatch, ApiError> {
        let events = client.events().await?;
        let state = EngineState::new(own, client.engine.to_string());
        let mut watch = EngineWatch {
            client,
            events,
            state,
            inspections: FuturesUnordered::new(),
            listing: None,
            last_list: Instant::now(),
            next_list: Instant::now(),
            list_took: Duration::ZERO,
            trouble,
            answered,
            is_suspect: false,
            subscription: None,
            inspected: 0,
            failure: None,
        };
        watch.list();
        watch.next_list = Instant::now() + RESYNC_FIRST;
        while watch.listing.is_some() || !watch.state.is_settled() {
            watch.changed().await?;
        }
        // The containers of the first list existed before the subscription.
        watch.state.take_missed_event();
        watch.is_suspect = false;
        // A container that cannot be inspected is left out; an engine that inspects none (a proxy that forbids it) is not an
        // engine without containers.
        match watch.failure.take() {
            Some(failure) if watch.inspected == 0 => Err(failure),
            _ => Ok(watch),
        }
    }

    /// Returns the current containers.
    pub(super) fn snapshot(&mut self) -> Containers {
        let snapshot = self.state.snapshot();
        // Containers that contest an address.
        self.inspect();
        snapshot
    }

    /// Waits for one event or response, and applies all others that have arrived by then.
    pub(super) async fn changed(&mut self) -> Result<(), ApiError> {
        tokio::select! {
            event = self.events.next() => self.apply_event(event?),
            Some((id, result)) = self.inspections.next() => self.apply_inspection(id, result),
            response = in_flight(&mut self.listing) => self.apply_list(response)?,
            events = in_flight(&mut self.subscription) => self.subscribed(events?),
            () = sleep_until(self.next_list), if self.is_idle() => self.resync(),
            () = self.trouble.notified() => self.next_list = self.next_list.min(self.earliest_list()),
        }
        self.apply_ready()?;
        self.inspect();
        Ok(())
    }

    /// Applies events last: an inspection from before an event must not restore what the event takes away.
    fn apply_ready(&mut self) -> Result<(), ApiError> {
        while let Some(Some((id, result))) = self.inspections.next().now_or_never() {
            self.apply_inspection(id, result);
        }
        self.is_suspect |= self.state.take_missed_event();
        for _ in 0..BURST_MAX {
            match self.events.next().now_or_never() {
                Some(event) => self.apply_event(event?),
                None => break,
            }
        }
        if self.state.pending() > PENDING_MAX {
            return Err(ApiError::Unusable("the engine reports too many containers".to_owned()));
        }
        Ok(())
    }

    fn apply_event(&mut self, event: DockerEvent) {
        self.is_suspect = false;
        self.answered.record();
        self.state.apply_event(event);
    }

    /// Returns whether neither a list nor a subscription is under way.
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

    /// Lists after a new subscription, as at the beginning.
    fn subscribed(&mut self, events: EventStream) {
        self.subscription = None;
        self.events = events;
        self.is_suspect = false;
        self.list();
        self.next_list = self.last_list + RESYNC_FIRST;
    }

    fn list(&mut self) {
        let client = self.client.clone();
        let before = self.state.begin_list();
        self.last_list = Instant::now();
        let begun = self.last_list;
        let listing = async move {
            let list = client.list().await;
            ListResponse { before, took: begun.elapsed(), list }
        };
        self.listing = Some(listing.boxed());
        self.next_list = self.last_list + self.pause(RESYNC_EVERY, PAUSE_PER_LIST);
    }

    fn apply_list(&mut self, ListResponse { before, took, list }: ListResponse) -> Result<(), ApiError> {
        self.listing = None;
        self.list_took = took;
        self.state.apply_list(&list?, &before);
        self.answered.record();
        Ok(())
    }

    /// Returns the earliest time of the next list while endpoints do not respond.
    fn earliest_list(&self) -> Instant {
        self.last_list + self.pause(RESYNC_IN_TROUBLE, PAUSE_PER_LIST_IN_TROUBLE)
    }

    fn pause(&self, min: Duration, per_list: u32) -> Duration {
        self.list_took.saturating_mul(per_list).clamp(min, RESYNC_MAX)
    }

    fn inspect(&mut self) {
        while self.inspections.len() < INSPECTIONS_MAX {
            let Some(id) = self.state.next_inspection() else { return };
            let client = self.client.clone();
            self.inspections.push(async move { (id.clone(), client.inspect(&id).await) }.boxed());
        }
    }

    fn apply_inspection(&mut self, id: ContainerId, result: Result<Inspection, ApiError>) {
        let inspection = match result {
            Ok(inspection) => {
                self.inspected += 1;
                inspection
            }
            Err(error) => {
                tracing::debug!(container = id.0, %error, "container inspection failed; keeping its last state");
                self.failure = Some(error);
                Inspection::Failed
            }
        };
        self.state.apply_inspection(id, inspection);
    }
}
