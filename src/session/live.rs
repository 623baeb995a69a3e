//! The list of a worker's current sessions.
//!
//! Each worker has its own list, on its own thread, so that a session is added and removed without a lock or an atomic
//! operation. The worker itself reads the list, a page per [`Query`].

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use slab::Slab;
use tokio::sync::oneshot;

use crate::cluster::{Cluster, Endpoint};
use crate::credentials::PeerIdentity;
use crate::listener::ClientAddr;
use crate::traffic::Traffic;

/// Sessions per page. Listing them blocks the worker for 10 us.
const PAGE: usize = 512;

thread_local! {
    static LIVE: RefCell<Slab<Arc<Live>>> = const { RefCell::new(Slab::new()) };
}

/// The visible state of a current session.
#[derive(Debug)]
pub struct Live {
    /// The cluster of its route.
    pub cluster: Arc<Cluster>,
    /// The address of its client.
    pub client: ClientAddr,
    /// When it was accepted.
    pub began: Instant,
    /// Its endpoint, once it is connected.
    pub endpoint: ArcSwapOption<Endpoint>,
    /// The identity of the peer, for a session in a tunnel.
    pub peer: ArcSwapOption<PeerIdentity>,
    /// Bytes relayed.
    pub traffic: Traffic,
}

/// A session in the list of its worker. Dropping it removes the session.
#[derive(Debug)]
pub(super) struct Listed {
    live: Arc<Live>,
    index: usize,
}

/// Requests a page of a worker's list.
#[derive(Debug)]
pub(crate) struct Query {
    from: usize,
    reply: oneshot::Sender<Page>,
}

/// A part of a list.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The sessions of the page.
    pub sessions: Vec<Arc<Live>>,
    /// Where the next page begins. `None` at the end.
    pub next: Option<usize>,
}

impl Listed {
    /// Adds a session to the list of this thread.
    pub(super) fn enter(cluster: Arc<Cluster>, client: ClientAddr) -> Listed {
        let live = Arc::new(Live {
            cluster,
            client,
            began: Instant::now(),
            endpoint: ArcSwapOption::empty(),
            peer: ArcSwapOption::empty(),
            traffic: Traffic::default(),
        });
        // At the end of the thread there is no list any more, and no query either.
        let index = LIVE.try_with(|list| list.borrow_mut().insert(live.clone())).unwrap_or(usize::MAX);
        Listed { live, index }
    }
}

impl std::ops::Deref for Listed {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let _ = LIVE.try_with(|list| {
            let mut list = list.borrow_mut();
            // On another thread the index would be that of another session.
            if list.get(self.index).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
                list.remove(self.index);
            }
            if list.is_empty() && list.capacity() > PAGE {
                // Frees the memory that a burst of sessions took.
                list.shrink_to_fit();
            }
        });
    }
}

impl Query {
    /// Creates a query for the page that begins at `from`, and the receiver of its result.
    pub(crate) fn new(from: usize) -> (Query, oneshot::Receiver<Page>) {
        let (reply, page) = oneshot::channel();
        (Query { from, reply }, page)
    }

    /// Responds with a page of the list of this thread.
    pub(crate) fn respond(self) {
        let page = LIVE.try_with(|list| page(&list.borrow(), self.from)).unwrap_or_default();
        // Fails if the receiver was dropped.
        let _ = self.reply.send(page);
    }
}

/// Returns a page. A session that begins or ends between two pages is in one of them or in none, but never in both.
fn page(list: &Slab<Arc<Live>>, from: usize) -> Page {
    let end = from.saturating_add(PAGE).min(list.capacity());
    let sessions = (from..end).filter_map(|index| list.get(index)).cloned().collect();
    Page { sessions, next: Some(end).filter(|end| *end < list.capacity()) }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::route::Options;

    fn enter(count: usize) -> Vec<Listed> {
        let cluster = Arc::new(Cluster::new(Options::named("test"), CancellationToken::new()));
        (0..count).map(|_| Listed::enter(cluster.clone(), ClientAddr::Unix)).collect()
    }

    fn listed() -> usize {
        let mut from = Some(0);
        let mut count = 0;
        while let Some(at) = from {
            let (query, mut page) = Query::new(at);
            query.respond();
            let page = page.try_recv().unwrap();
            assert!(page.sessions.len() <= PAGE);
            count += page.sessions.len();
            from = page.next;
        }
        count
    }

    #[test]
    fn list_is_read_by_pages_and_contains_the_current_sessions() {
        assert_eq!(listed(), 0);
        let mut sessions = enter(3 * PAGE + 7);
        assert_eq!(listed(), 3 * PAGE + 7);
        sessions.drain(10..2 * PAGE);
        assert_eq!(listed(), PAGE + 17);
        drop(sessions);
        assert_eq!(listed(), 0);
    }

    #[test]
    fn session_dropped_on_another_thread_removes_no_other_session() {
        let ours = enter(1);
        std::thread::spawn(|| enter(1)).join().unwrap();
        let theirs = std::thread::spawn(|| enter(1)).join().unwrap();
        drop(theirs);
        assert_eq!(listed(), ours.len());
    }
}
