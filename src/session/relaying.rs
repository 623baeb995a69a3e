//! A connected session: relays until both sides have finished or the session must end. Written by hand, because every idle session
//! has one of these futures, and an `async` block would store its arguments twice.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFuture;

use super::Shared;
use super::record::Record;
use crate::cluster::InFlight;
use crate::ending::Ending;
use crate::relay::{Limits, Relay, relay};
use crate::stream::Stream;

pin_project! {
    /// Resolves when the session has ended, with its ending.
    pub(super) struct Relaying<'a> {
        relay: Relay<'a, &'a Record>,
        #[pin]
        stopped: Stopped<'a>,
    }
}

impl<'a> Relaying<'a> {
    pub(super) fn new(
        downstream: &'a Stream,
        upstream: &'a Stream,
        limits: Limits,
        record: &'a Record,
        shared: &'a Shared,
    ) -> Relaying<'a> {
        Relaying { relay: relay(downstream, upstream, limits, record), stopped: record.stopped(shared) }
    }
}

impl Future for Relaying<'_> {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = self.project();
        if let Poll::Ready(ending) = Pin::new(&mut *this.relay).poll(cx) {
            return Poll::Ready(ending);
        }
        let ending = ready!(this.stopped.poll(cx));
        this.relay.reset();
        Poll::Ready(ending)
    }
}

pin_project! {
    /// Resolves when the session must end, with its ending.
    pub(super) struct Stopped<'a> {
        endpoint: Option<&'a InFlight>,
        shared: &'a Shared,
        #[pin]
        cut: Option<WaitForCancellationFuture<'a>>,
        // Boxed, because few routes have a `max-duration`.
        max_duration: Option<Pin<Box<Sleep>>>,
    }
}

impl Record {
    /// Resolves when the session must end: its endpoint's sessions are cut, the process ends all, or `max-duration` has passed.
    pub(super) fn stopped<'a>(&'a self, shared: &'a Shared) -> Stopped<'a> {
        let max_duration = self.live.cluster.members().options.max_duration;
        Stopped {
            endpoint: self.endpoint.as_ref(),
            shared,
            cut: self.endpoint.as_ref().map(InFlight::cut),
            max_duration: max_duration.map(|max| Box::pin(sleep(max))),
        }
    }
}

impl Future for Stopped<'_> {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = self.project();
        if let (Some(endpoint), Some(cut)) = (*this.endpoint, this.cut.as_pin_mut())
            && cut.poll(cx).is_ready()
        {
            return Poll::Ready(cut_ending(endpoint, this.shared));
        }
        match this.max_duration {
            Some(timer) => timer.as_mut().poll(cx).map(|()| Ending::MaxDuration),
            None => Poll::Pending,
        }
    }
}

/// Returns why the sessions of an endpoint were cut.
fn cut_ending(endpoint: &InFlight, shared: &Shared) -> Ending {
    if shared.force.is_cancelled() {
        Ending::Drained
    } else if endpoint.is_removed() {
        Ending::Cut
    } else {
        Ending::Unhealthy
    }
}
