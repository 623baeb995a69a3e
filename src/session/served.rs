//! A connected session, until both sides are done or it must end. Written by hand, since idle sessions are made of it: as
//! `async` blocks it would keep its arguments twice.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFuture;

use super::{Record, Shared};
use crate::cluster::InFlight;
use crate::ending::Ending;
use crate::relay::{Limits, Relay, relay};
use crate::socket::Socket;

pin_project! {
    pub(super) struct Served<'a> {
        relay: Relay<'a, &'a Record>,
        #[pin]
        stopped: Stopped<'a>,
    }
}

impl<'a> Served<'a> {
    pub(super) fn new(
        downstream: &'a Socket,
        upstream: &'a Socket,
        limits: Limits,
        record: &'a Record,
        shared: &'a Shared,
    ) -> Served<'a> {
        Served { relay: relay(downstream, upstream, limits, record), stopped: record.stopped(shared) }
    }
}

impl Future for Served<'_> {
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
    /// Resolves when the session must end, with why.
    pub(super) struct Stopped<'a> {
        endpoint: Option<&'a InFlight>,
        shared: &'a Shared,
        #[pin]
        cut: Option<WaitForCancellationFuture<'a>>,
        // Boxed, since few routes have a `max-duration`.
        over: Option<Pin<Box<Sleep>>>,
    }
}

impl Record {
    pub(super) fn stopped<'a>(&'a self, shared: &'a Shared) -> Stopped<'a> {
        let max = self.live.cluster.members().options.max_duration;
        Stopped {
            endpoint: self.endpoint.as_ref(),
            shared,
            cut: self.endpoint.as_ref().map(InFlight::cut),
            over: max.map(|max| Box::pin(sleep(max))),
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
            return Poll::Ready(why_cut(endpoint, this.shared));
        }
        match this.over {
            Some(over) => over.as_mut().poll(cx).map(|()| Ending::MaxDuration),
            None => Poll::Pending,
        }
    }
}

fn why_cut(endpoint: &InFlight, shared: &Shared) -> Ending {
    if shared.force.is_cancelled() {
        Ending::Drained
    } else if endpoint.is_removed() {
        Ending::Cut
    } else {
        Ending::Unhealthy
    }
}
