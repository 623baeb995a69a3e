//! A connected session, until both sides are done or it must end. Written by hand, since idle sessions are made of it: as
//! `async` blocks it would keep its arguments twice.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFuture;

use super::{Record, Shared};
use crate::cluster::InFlight;
use crate::connect;
use crate::ending::Ending;
use crate::relay::{Limits, Relay, relay};
use crate::socket::Socket;

/// When a session gets [`connect::keep_alive`]. Most sessions end before, and save its system calls; a peer that vanishes
/// is found after two minutes anyway.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(1);

pin_project! {
    pub(super) struct Served<'a> {
        relay: Relay<'a, &'a Record>,
        // Boxed, since few sessions at a time have one.
        keepalive_due: Option<Pin<Box<Due>>>,
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
        Served {
            relay: relay(downstream, upstream, limits, record),
            keepalive_due: (!upstream.is_unix()).then(|| Box::pin(Due::after(KEEPALIVE_AFTER))),
            stopped: record.stopped(shared),
        }
    }
}

impl Future for Served<'_> {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = self.project();
        if let Poll::Ready(ending) = Pin::new(&mut *this.relay).poll(cx) {
            return Poll::Ready(ending);
        }
        if this.keepalive_due.as_mut().is_some_and(|due| due.as_mut().is_over(cx)) {
            *this.keepalive_due = None;
            // Fails only for a connection that is broken already.
            let _ = connect::keep_alive(this.relay.upstream());
        }
        let ending = ready!(this.stopped.poll(cx));
        this.relay.reset();
        Poll::Ready(ending)
    }
}

pin_project! {
    /// A time that passes. Asked at each poll of a session, so that it costs no more than a look.
    struct Due {
        #[pin]
        sleep: Sleep,
        is_registered: bool,
    }
}

impl Due {
    fn after(pause: Duration) -> Due {
        Due { sleep: sleep(pause), is_registered: false }
    }

    /// Has the task woken when it is over: always the same one, so that saying it once is enough.
    fn is_over(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let this = self.project();
        if *this.is_registered {
            return this.sleep.is_elapsed();
        }
        // A task that has used its budget is not registered, but woken to try again.
        *this.is_registered = has_budget_remaining();
        this.sleep.poll(cx).is_ready()
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
        let max = self.live.cluster.glance().options.max_duration;
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
